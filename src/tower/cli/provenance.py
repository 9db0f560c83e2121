"""The chain of a run, as `tower audit verify --run` prints it for people."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from tower.clock import utc


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The run, what it asked for, and what was decided about it; nothing of it steers a terminal."""
    for line in _lines(found):
        yield "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"run {found['run']}" + ("" if found["signed"] else "  (not under a signature yet)")
    yield from _link(found["chain"], depth=0)
    if found["decisions"]:
        yield "decisions about it, and from inside it:"
    for each in found["decisions"]:
        by = each["decision"] or "no policy"
        yield (
            f"  record {each['record']} {_time(each['at'])} {each['event']} {each['outcome']}: "
            f"{each['subject']} {each['action']} {each['resource']} ({by})"
        )


def wrong(found: dict[str, Any]) -> str:
    """What does not hold, in a sentence; "" when all does."""
    if found["problems"]:
        return str(found["problems"][0])
    if not found["signed"]:
        return (
            f"Record {found['last_record']} of the run is under no signature yet; "
            "the chain is signed a second after a record, and whenever it is exported."
        )
    return ""


def _link(link: dict[str, Any], *, depth: int) -> Iterator[str]:
    margin = "  " * depth
    way = " → ".join(link["actors"])
    end = link["end"]
    yield f"{margin}{link['action']}: {link['task']} version {link['version']}, record {link['record']}"
    inner = margin + "  "
    if depth == 0:
        shown = link["credential_kind"].replace("_", " ")
        yield f"{inner}person      {link['person']}"
        yield f"{inner}credential  {shown} {link['credential_id']}"
        yield f"{inner}through     {way or 'nothing: directly'}"
    else:
        yield f"{inner}person      {link['person']} through {way}"
    policies = ", ".join(link["allowed_by"]) or "no policy"
    yield f"{inner}allowed by  {policies}, policy revision {link['policy_revision']}"
    yield f"{inner}code        {link['code_digest'] or 'part of the image'}"
    yield f"{inner}inputs      {link['inputs']}"
    ended = "not ended"
    if end is not None:
        outcome = "succeeded" if end["outcome"] == "allowed" else end["outcome"]
        ended = f"{outcome} at {_time(end['at'])}, record {end['record']}"
    yield f"{inner}asked       {_time(link['at'])}; {ended}"
    for each in link["below"]:
        yield from _link(each, depth=depth + 1)


def _time(seconds: float) -> str:
    try:
        at: dt.datetime = utc(seconds)
    except (ValueError, OverflowError, OSError):  # no time that a calendar has
        return str(seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
