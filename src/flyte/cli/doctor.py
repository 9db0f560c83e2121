"""`flyte doctor`: what is wrong between this machine and a control plane, and what to do about it."""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import rich_click as click

from ._command import Target, narrowed, options
from ._exits import Exit, in_options
from ._output import print_json

if TYPE_CHECKING:
    from flyte._config import Endpoint
    from flyte.transport.session import Session

MAX_SKEW_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `remedy` says what to do when it is not well."""

    what: str
    well: bool
    told: str
    remedy: str = ""


@click.command("doctor")
@options
@click.pass_context
def doctor(context: click.Context, /, **given: Any) -> None:
    """Check endpoint, TLS, clock, credential and settings, and say what to do.

    Ends with status 1 when something is not well.
    """
    target = narrowed(context.obj, given)
    findings = [
        replace(each, remedy="" if each.well else in_options(each.remedy))
        for each in asyncio.run(_examine(target))
    ]
    if target.output == "json":
        print_json(findings)
    for finding in findings if target.output != "json" else ():
        click.echo(f"{'ok  ' if finding.well else 'BAD '} {finding.what}: {finding.told}")
        if finding.remedy:
            click.echo(f"     {finding.remedy}")
    if not all(finding.well for finding in findings):
        context.exit(Exit.FAILURE)


async def _examine(target: Target) -> list[Finding]:
    from flyte.errors import FlyteError

    findings = [*_environment()]
    try:
        session = target.session()
    except FlyteError as error:
        return [*findings, Finding("settings", False, error.message, error.hint)]
    findings.append(Finding("endpoint", True, _endpoint(session)))
    try:
        reached = await _reach(session)
        findings += reached
        if all(finding.well for finding in reached[:1]):
            findings.append(await _credential(session))
    finally:
        await session.aclose()
    return findings


def _endpoint(session: Session) -> str:
    place: Endpoint = session.endpoint
    how = "TLS" if place.scheme == "https" else "plain HTTP"
    return f"{place.url} ({how}); project {session.project}, domain {session.domain}"


def _environment() -> list[Finding]:
    """Settings that contradict each other, as people leave them behind."""
    findings = []
    if os.environ.get("FLYTE_API_KEY") and _has_login():
        findings.append(
            Finding(
                "credentials",
                True,
                "FLYTE_API_KEY is set and wins over `flyte login`; unset it to be yourself.",
            )
        )
    if os.environ.get("FLYTE_AUTH_TYPE", "").lower() not in {"", "passthrough"}:
        findings.append(
            Finding(
                "passthrough",
                False,
                "FLYTE_AUTH_TYPE is read by another SDK, not by this one.",
                "An app acts for its callers by flyte.init_passthrough() and the middleware, "
                "everything else by FLYTE_API_KEY or `flyte login`.",
            )
        )
    hosted = bool(os.environ.get("FLYTE_APP_SOCKET"))
    if hosted and os.environ.get("FLYTE_API_KEY"):
        findings.append(
            Finding(
                "passthrough",
                False,
                "This app has a key of its own in FLYTE_API_KEY.",
                "Leave it out: with flyte.init_passthrough() each call is made as the caller.",
            )
        )
    return findings


def _has_login() -> bool:
    from flyte.errors import FlyteError
    from flyte.transport.login.cache import LoginCache

    try:
        return bool(LoginCache().all())
    except FlyteError:
        return True


async def _reach(session: Session) -> list[Finding]:
    """Whether the server answers, whether it is a control plane, and what its clock says."""
    import httpcore

    from flyte.transport._pool import Pools
    from flyte.transport.connect import unreachable

    pools = Pools(uds=session.socket, ca_file=session.settings.ca_file)
    url = session.endpoint.url + "/.well-known/oauth-authorization-server"
    try:
        async with pools.request(
            "unary", "GET", url, headers=[(b"accept", b"application/json")], content=b"", read_seconds=15.0
        ) as answer:
            status, fields = answer.status, {name.lower(): value for name, value in answer.headers}
            raw = bytearray()
            async for chunk in answer.aiter_stream():
                raw += chunk[: 256 * 1024 - len(raw)]
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
        fault = unreachable(session.endpoint.url, error)
        return [Finding("connection", False, fault.message, fault.hint)]
    finally:
        await pools.aclose()
    findings = [Finding("connection", True, f"{session.endpoint.url} answers")]
    try:
        issuer = json.loads(bytes(raw)).get("issuer") if status == 200 else None
    except (ValueError, AttributeError):
        issuer = None
    if issuer is not None and issuer != session.endpoint.url:
        findings.append(
            Finding(
                "name",
                False,
                f"the control plane calls itself {issuer}",
                "Use that name, or start Tower with --host set to the name that you use.",
            )
        )
    sent = email.utils.parsedate_to_datetime(fields[b"date"].decode("latin-1")) if b"date" in fields else None
    if sent is not None:
        skew = time.time() - sent.timestamp()
        findings.append(
            Finding(
                "clock",
                abs(skew) <= MAX_SKEW_SECONDS,
                f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the control plane's",
                "Set this machine's clock: with a wrong one, tokens end too early or too late.",
            )
        )
    return findings


async def _credential(session: Session) -> Finding:
    from flyte._init import use_session
    from flyte.errors import FlyteError
    from flyte.remote import User

    if session.mode == "anonymous":
        remedy = "Sign in with `flyte login`, or set FLYTE_API_KEY."
        return Finding("credential", False, "there is none for this endpoint", remedy)
    try:
        with use_session(session):
            user = await User.get.aio()
    except FlyteError as error:
        return Finding("credential", False, error.message, error.hint)
    return Finding("credential", True, f"{user.subject()}, by {session.mode.replace('_', ' ')}")
