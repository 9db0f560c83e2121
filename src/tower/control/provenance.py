"""The chain of one run, from audit records alone: person, credential, app, run, sub-runs. Pure.

Whether the records are whole is for `proving` to say; here they are put together, and what does not fit is
named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tower.audit import Entry, Event, Outcome

_BEGINS = frozenset({Event.RUN_CREATE.value})
_ENDS = frozenset({Event.RUN_FINISH.value})
_MOST = 10_000
_DEEPEST = 100  # Tower lets in far fewer, one below the other


@dataclass(slots=True)
class Link:
    """An action that was let in: its `run.create`, its `run.finish` as `end`, what it asked for `below`."""

    entry: Entry
    action: str
    parent: str
    detail: dict[str, Any]
    actors: tuple[str, ...]
    end: Entry | None = None
    below: list[Link] = field(default_factory=list)
    depth: int = 0

    @property
    def id(self) -> str:
        """`project/domain/run/action`."""
        return f"{self.entry.run}/{self.action}"

    def all(self) -> Iterator[Link]:
        """Itself and everything below."""
        yield self
        for each in self.below:
            yield from each.all()


@dataclass(frozen=True, slots=True)
class Provenance:
    """A run's root, the other records about it or from inside it, and what does not fit together."""

    root: Link
    others: tuple[Entry, ...]
    problems: tuple[str, ...]

    @property
    def last(self) -> int:
        """The number of the last record that belongs to it: a signature behind it covers all of them."""
        links = [seq for link in self.root.all() for seq in (link.entry.seq, link.end.seq if link.end else 0)]
        return max([*links, *(entry.seq for entry in self.others)])


class Tracing:
    """Gathers what belongs to a run while somebody else walks along the chain.

    `run` is `project/domain/name`, or a name alone where no other place has a run of that name.
    """

    def __init__(self, run: str) -> None:
        self._asked = run
        self._wanted = {run} if "/" in run else set[str]()
        self._links: list[Link] = []
        self._ends: dict[tuple[str, str], Entry] = {}
        self._others: list[Entry] = []
        self._unclear: str = ""

    def along(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The same entries, each looked at on its way."""
        for entry in entries:
            self._look(entry)
            yield entry

    def found(self) -> Provenance | None:
        """The run; None when no record says that it was let in."""
        roots = [link for link in self._links if link.parent == "" and not _inside(link, self._wanted)]
        if not roots:
            return None
        links = {link.id: link for link in self._links}
        problems = [self._unclear] if self._unclear else []
        for link in sorted(
            self._links, key=lambda each: each.entry.seq
        ):  # who asked before who was asked for
            link.end = self._ends.get((link.entry.run, link.action))
            if link is not roots[0]:
                problems += self._place(link, links)
        return Provenance(roots[0], tuple(self._others), tuple(problems))

    def _look(self, entry: Entry) -> None:
        if entry.event in _BEGINS and entry.outcome == Outcome.ALLOWED:
            actors, detail = _json(entry.actors, []), _json(entry.detail, {})
            if "/" not in self._asked and entry.run.rpartition("/")[2] == self._asked and entry.run:
                if self._wanted and entry.run not in self._wanted:
                    self._unclear = f"There are several runs {self._asked}: say PROJECT/DOMAIN/NAME."
                else:
                    self._wanted.add(entry.run)
            if entry.run in self._wanted or _runs(actors) & self._wanted:
                self._wanted.add(entry.run)
                if len(self._links) < _MOST:
                    action = _text(detail, "action", "a0")
                    link = Link(entry, action, _text(detail, "parent"), detail, _texts(actors))
                    self._links.append(link)
        elif entry.run in self._wanted:
            if entry.event in _ENDS:
                self._ends[entry.run, _text(_json(entry.detail, {}), "action", "a0")] = entry
            elif len(self._others) < _MOST:
                self._others.append(entry)

    @staticmethod
    def _place(link: Link, links: dict[str, Link]) -> list[str]:
        """Put a link below the action that asked for it; what is wrong with that, if anything."""
        said = f"Record {link.entry.seq} ({link.id})"
        inside = [actor for actor in link.actors if actor.startswith("run:")]
        if not inside:
            return [f"{said} names no run that asked for it."]
        by = "/".join(inside[-1].removeprefix("run:").split("/")[:4])
        above = links.get(by)
        if above is None or above.entry.seq >= link.entry.seq:
            return [f"{said} says that {by} asked for it, of which there is no earlier record."]
        if above.depth >= _DEEPEST:
            return [f"{said} lies deeper below other runs than any that was let in."]
        link.depth = above.depth + 1
        above.below.append(link)
        wrong = []
        if link.entry.subject != above.entry.subject:
            wrong.append(f"{said} is {link.entry.subject}'s, and {by} is {above.entry.subject}'s.")
        if link.actors[: link.actors.index(inside[-1])] != above.actors:
            wrong.append(f"{said} does not carry the whole chain of {by}.")
        if link.entry.credential_id != above.entry.credential_id:
            wrong.append(f"{said} has another credential behind it than {by}.")
        return wrong


def _inside(link: Link, wanted: set[str]) -> bool:
    return bool(_runs(link.actors) & wanted)


def _runs(actors: Iterable[Any]) -> set[str]:
    return {
        "/".join(actor.removeprefix("run:").split("/")[:3])
        for actor in _texts(actors)
        if actor.startswith("run:")
    }


def _texts(actors: Iterable[Any]) -> tuple[str, ...]:
    """The actors of a record; what is no text is none."""
    return tuple(actor if isinstance(actor, str) else "?" for actor in actors)


def _text(detail: dict[str, Any], name: str, otherwise: str = "") -> str:
    found = detail.get(name, otherwise)
    return found if isinstance(found, str) else "?"


def _json(text: str, otherwise: Any) -> Any:
    """What a damaged record says is of no matter: `proving` names it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return otherwise
    return value if isinstance(value, type(otherwise)) else otherwise


def document(found: Provenance, *, signed: int) -> dict[str, Any]:
    """What was found as JSON; `signed` is the last record under a good signature."""
    return {
        "run": found.root.entry.run,
        "signed": found.last <= signed,
        "last_record": found.last,
        "problems": list(found.problems),
        "chain": _link(found.root, signed),
        "decisions": [
            {
                "record": entry.seq,
                "at": entry.at,
                "event": entry.event,
                "outcome": entry.outcome,
                "subject": entry.subject,
                "action": entry.action,
                "resource": entry.resource,
                "decision": entry.decision,
                "policy_revision": entry.policy_revision,
            }
            for entry in found.others
        ],
    }


def _link(link: Link, signed: int) -> dict[str, Any]:
    entry = link.entry
    end = link.end
    return {
        "record": entry.seq,
        "hash": entry.hash,
        "signed": entry.seq <= signed,
        "at": entry.at,
        "run": entry.run,
        "action": link.action,
        "person": entry.subject,
        "credential_kind": entry.credential_kind,
        "credential_id": entry.credential_id,
        "app": entry.app,
        "actors": list(link.actors),
        "task": entry.resource,
        "version": _text(link.detail, "version"),
        "code_digest": _text(link.detail, "code_digest"),
        "inputs": _text(link.detail, "inputs"),
        "allowed_by": [policy for policy in entry.decision.split(",") if policy],
        "policy_revision": entry.policy_revision,
        "end": None if end is None else {"record": end.seq, "at": end.at, "outcome": end.outcome},
        "below": [_link(each, signed) for each in link.below],
    }
