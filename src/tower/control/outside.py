"""Identity tokens for outside: a running task shows a cloud or a vault whom it acts for, without a secret."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from tower.audit import Event
from tower.clock import Clock
from tower.control.access import Access
from tower.control.definitions import Definitions
from tower.control.pace import Pace
from tower.control.redaction import Redaction
from tower.control.runs import run_resource
from tower.control.waiting import attempt_of
from tower.errors import Denied, Invalid, Precondition
from tower.identity import outside
from tower.identity.clients import PUBLIC
from tower.identity.outside import IdentityToken, OutsideRing
from tower.identity.principal import Principal
from tower.identity.tokens import AUDIENCE
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.settings import Settings
from tower.store import runs
from tower.store.database import Database, Transaction
from tower.store.runs import ActionRow

LONGEST_AUDIENCE = 256
BURST = 30
SECONDS_EACH = 2.0


class Outside:
    """The use-case of `POST /api/v1/workload/identity-token`."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        access: Access,
        definitions: Definitions,
        ring: OutsideRing,
        redaction: Redaction,
        settings: Settings,
        ours: Callable[[str], bool],
    ) -> None:
        """`ours` tells whether a base URL is one of this Tower's."""
        self._db = db
        self._clock = clock
        self._access = access
        self._definitions = definitions
        self._ring = ring
        self._redaction = redaction
        self._settings = settings
        self._ours = ours
        self._pace = Pace(clock, burst=BURST, seconds=SECONDS_EACH)
        self._making = asyncio.Lock()

    async def identify(
        self, principal: Principal, audience: str, *, issuer: str, request_id: str = ""
    ) -> IdentityToken:
        """A token about the calling attempt for one audience.

        Raises Denied when no attempt calls or a policy forbids the audience, Invalid for what is no audience
        or is Tower itself, Exhausted for too many from one run, Precondition once the action has ended.
        """
        row, attempt = await self._attempt(principal, request_id=request_id)
        self._check(audience)
        run = run_resource(row.key, owner=row.executed_by)
        decision = await self._access.check_under(
            self._access.engine,
            principal,
            Action.IDENTITY_TOKEN,
            run,
            author=self._author(row),
            audience=audience,
        )
        detail = {"audience": audience, "run": "/".join(row.key[:3]), "action": row.action}
        if not decision.allowed:
            await self._access.refuse(principal, decision, request_id=request_id, detail=detail)
            raise Denied(
                f"This run may not identify itself to {audience}.", hint="A policy or a limit forbids it."
            )
        self._pace.take(str(run), what="identity tokens")
        async with self._making:
            # the first key of all takes its time
            token = await asyncio.to_thread(self._mint, principal, row, attempt, audience, issuer)

        def write(tx: Transaction) -> None:
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.IDENTITY_TOKEN_CREATE,
                request_id=request_id,
                detail={**detail, "jti": token.id, "expires_at": token.expires_at},
            )

        await self._db.write(write)
        self._redaction.add(attempt, [token.text.encode()])
        return token

    def _mint(
        self, principal: Principal, row: ActionRow, attempt: str, audience: str, issuer: str
    ) -> IdentityToken:
        facts: dict[str, str | int] = {
            "org": self._settings.org,
            "project": row.project,
            "domain": row.domain,
            "run": row.run,
            "action": row.action,
            "attempt": int(attempt.rpartition("/")[2]),
            "task": f"{row.task_project}/{row.task_domain}/{row.task_name}",
            "task_version": row.task_version,
            "code_digest": row.code_digest,
            "registered_by": self._author(row),
        }
        return outside.mint(
            self._ring,
            now=self._clock.now(),
            issuer=issuer,
            subject=principal.subject,
            audience=audience,
            actors=principal.actors,
            facts=facts,
            ends_at=principal.credential.expires_at,
        )

    def _author(self, row: ActionRow) -> str:
        """Who registered the code; what was sent along with the call is the caller's own."""
        if row.spec is not None:
            return row.executed_by
        task = (row.task_project, row.task_domain, row.task_name)
        definition = self._definitions.find(task, row.task_version)
        return "" if definition is None else definition.row.deployed_by

    async def _attempt(self, principal: Principal, *, request_id: str) -> tuple[ActionRow, str]:
        caller = attempt_of(principal)
        if caller is None:
            org = str(Resource(ResourceType.ORG))
            revision = self._access.revision
            refused = Decision(False, ("no-running-task",), revision, Action.IDENTITY_TOKEN.value, org)
            await self._access.refuse(principal, refused, request_id=request_id)
            raise Denied("Only a running task is given an identity token.", hint="Ask from inside one.")
        key, attempt = caller
        row = self._db.read_now(lambda reader: runs.get(reader, key))
        if row is None or row.phase.terminal:
            raise Precondition("The action that asks has ended.")
        return row, attempt

    def _check(self, audience: str) -> None:
        """Raise Invalid for what is no audience, and for Tower and its apps: they take no such token."""
        if not 0 < len(audience) <= LONGEST_AUDIENCE or not audience.isascii() or not _visible(audience):
            raise Invalid(
                f"An audience has 1 to {LONGEST_AUDIENCE} visible ASCII characters without blanks.",
                hint="It is what the other side expects as `aud`, often its URL.",
            )
        own = {AUDIENCE, PUBLIC, self._settings.org.lower()}
        if audience.lower().strip("/") in own or self._here(audience):
            raise Invalid(
                f"{audience} is Tower itself, which takes no identity tokens.",
                hint="In a task the SDK calls Tower as the task's executor without any.",
            )

    def _here(self, audience: str) -> bool:
        text = audience if "://" in audience else f"http://{audience.removeprefix('//')}"
        try:
            parts = urlsplit(text)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            return "://" in audience  # a broken URL may be read as ours by somebody else
        apps = self._settings.apps_domain.lower()
        # other programs of this machine are no apps of ours
        if host.endswith(f".{apps}") or (host == apps and apps != "localhost"):
            return True
        port = port or (443 if parts.scheme.lower() == "https" else 80)
        public = urlsplit(self._settings.public_url)
        if host == public.hostname and port in {80, 443, public.port, self._settings.port}:
            return True
        if port != self._settings.port:
            return False
        host = _written_out(host)
        named = f"[{host}]" if ":" in host else host
        scheme = "https" if self._settings.tls else "http"
        return self._ours(f"{scheme}://{named}:{self._settings.port}")


def _written_out(host: str) -> str:
    """An address as it is always written; 127.1, 0x7f000001, ::ffff:127.0.0.1 and 0.0.0.0 reach the same."""
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        try:
            address = IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeEncodeError):
            return host
    address = getattr(address, "ipv4_mapped", None) or address
    return "127.0.0.1" if address.is_unspecified else str(address)


def _visible(text: str) -> bool:
    return all("!" <= character <= "~" for character in text)
