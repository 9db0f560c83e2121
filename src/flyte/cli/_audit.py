"""`flyte get audit`: who did what, through what, and why it was allowed; or the whole chain as a file."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import rich_click as click

from ._command import Target, remote
from ._newfile import new_file
from ._output import print_records

_PAGE = 500


@click.command("audit")
@click.option("--user", help="What this user or service did, also through apps and tasks.")
@click.option("--app", help="What came through this app: PROJECT/DOMAIN/NAME, or NAME in your scope.")
@click.option("--run", help="What is about this run or came from it: PROJECT/DOMAIN/NAME, or NAME.")
@click.option("--action", help="This action, as task:run.")
@click.option("--event", help="This event, as run.create.")
@click.option("--resource", help="About this resource, as task:PROJECT/DOMAIN/NAME.")
@click.option("--outcome", type=click.Choice(["allowed", "refused", "failed", "cancelled"]))
@click.option(
    "--since", metavar="TIME", help="From this time on: 2026-01-31, 2026-01-31T12:00:00Z, or 2h ago as 2h."
)
@click.option("--until", metavar="TIME", help="Before this time.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option(
    "--export",
    "export",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the whole chain there as JSON lines, for `tower audit verify --file`. Takes no filter.",
)
@remote
async def audit(target: Target, *, limit: int, export: Path | None, **given: Any) -> None:
    """List audit records, newest first. Needs the right audit:view."""
    from flyte._init import current_session

    session = current_session()
    if export is not None:
        if any(value is not None for value in given.values()):
            raise click.UsageError("An export is of the whole chain: it takes no filter.")
        await _export(session, export)
        return
    asked = {key: value for key, value in given.items() if value is not None}
    asked["subject"] = asked.pop("user", None)
    for name in ("app", "run"):
        if name in asked and "/" not in asked[name]:
            asked[name] = "/".join((*session.scope(), asked[name]))
    for name in ("since", "until"):
        if name in asked:
            asked[name] = _time(asked[name])
    found: list[Any] = []
    before: int | None = None
    while len(found) < limit:
        query = {**asked, "limit": min(_PAGE, limit - len(found)), "before": before}
        named = {key: value for key, value in query.items() if value is not None}
        page = await session.json("GET", f"/api/v1/audit?{urlencode(named)}")
        found += page["records"]
        before = page["next"]
        if before is None:
            break
    columns = ("seq", "at", "subject", "event", "outcome", "resource", "app", "run", "decision")
    print_records(found, columns=columns, output=target.output)


async def _export(session: Any, path: Path) -> None:
    after, first, last = 0, True, 0
    with new_file(path) as file:
        while True:
            part = await session.json("GET", f"/api/v1/audit/chain?{urlencode({'after': after})}")
            records, signed = part["records"], part["checkpoints"]
            if first:
                begin = records[0]["seq"] - 1 if records else 0
                head = {"type": "export", "form": "tower.audit.export.1", "after": begin}
                _line(file, {**head, "keys": part.get("keys", [])})
                first, last = False, begin
            lines = sorted([*records, *signed], key=lambda each: (each["seq"], each["type"] == "checkpoint"))
            for line in lines:
                _line(file, line)
            last = records[-1]["seq"] if records else last
            if part["next"] is None:
                break
            after = part["next"]
        _line(file, {"type": "end", "seq": last})
    click.echo(f"Written to {path}, through record {last}.", err=True)


def _line(file: Any, value: dict[str, Any]) -> None:
    file.write(json.dumps(value, separators=(",", ":")) + "\n")


def _time(text: str) -> float:
    """Seconds since the epoch of a date, a time (UTC unless it says otherwise), or an age."""
    now = dt.datetime.now(dt.UTC)
    units = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    if text[:-1].isdigit() and len(text) < 10 and text[-1] in units:
        return (now - dt.timedelta(**{units[text[-1]]: int(text[:-1])})).timestamp()
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time. Write 2026-01-31, 2026-01-31T12:00:00Z or 2h."
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()
