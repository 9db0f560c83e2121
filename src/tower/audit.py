"""What an audit record is: event names, facts, the hash chain that holds the records together. Pure.

Every record carries the hash of the one before it and its own, over all its facts. Who edits, deletes,
inserts or reorders stored records breaks the chain at that place, and `verify` names it. Who can write the
store can also recompute the whole chain, or cut off its end: keep a `Head` elsewhere, and `verify` compares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

GENESIS = "0" * 64
"""What the first record names as the hash before it."""

_FORM = "tower.audit.1"


class Event(StrEnum):
    """Every event there is. A name is `noun.verb` in lower case: the thing, and what was asked of it.

    A name is never reused for something else, since stored records keep their meaning for years.
    """

    RUN_CREATE = "run.create"
    RUN_ABORT = "run.abort"
    RUN_FINISH = "run.finish"
    ATTEMPT_START = "attempt.start"
    ATTEMPT_FINISH = "attempt.finish"
    TASK_DEPLOY = "task.deploy"
    APP_DEPLOY = "app.deploy"
    APP_START = "app.start"
    APP_STOP = "app.stop"
    APP_DELETE = "app.delete"
    APP_USE = "app.use"
    KEY_CREATE = "key.create"
    KEY_DELETE = "key.delete"
    KEY_ROTATE = "key.rotate"
    KEY_DISABLE = "key.disable"
    KEY_ENABLE = "key.enable"
    USER_CREATE = "user.create"
    USER_DISABLE = "user.disable"
    USER_ENABLE = "user.enable"
    BINDING_CREATE = "binding.create"
    BINDING_DELETE = "binding.delete"
    SESSION_CREATE = "session.create"
    SESSION_REVOKE = "session.revoke"
    LINK_CREATE = "link.create"
    PASSWORD_SET = "password.set"  # noqa: S105  (a name of an event, not a secret)
    PASSWORD_DELETE = "password.delete"  # noqa: S105
    LOGIN_CREATE = "login.create"
    LOGIN_REVOKE = "login.revoke"
    LOGIN_ALLOW = "login.allow"
    TOKEN_CREATE = "token.create"  # noqa: S105
    TOKEN_REVOKE = "token.revoke"  # noqa: S105
    SIGNING_KEY_ROTATE = "signing-key.rotate"
    UPLOAD_CREATE = "upload.create"
    DOWNLOAD_CREATE = "download.create"
    PROJECT_CREATE = "project.create"
    PROJECT_UPDATE = "project.update"
    DATA_READ = "data.read"
    ROLE_CREATE = "role.create"
    ROLE_UPDATE = "role.update"
    ROLE_DELETE = "role.delete"
    GROUP_CREATE = "group.create"
    GROUP_UPDATE = "group.update"
    GROUP_DELETE = "group.delete"
    POLICY_CREATE = "policy.create"
    POLICY_UPDATE = "policy.update"
    POLICY_DELETE = "policy.delete"
    CEILING_UPDATE = "ceiling.update"
    CEILING_DELETE = "ceiling.delete"
    USER_UPDATE = "user.update"
    USER_DELETE = "user.delete"
    AUDIT_EXPORT = "audit.export"
    AUDIT_PRUNE = "audit.prune"
    WEBHOOK_UPDATE = "webhook.update"
    WEBHOOK_DELETE = "webhook.delete"
    GRANT_REVOKE = "grant.revoke"
    AGENT_START = "agent.start"
    AGENT_END = "agent.end"
    SECRET_CREATE = "secret.create"  # noqa: S105
    SECRET_UPDATE = "secret.update"  # noqa: S105
    SECRET_DELETE = "secret.delete"  # noqa: S105
    SECRET_READ = "secret.read"  # noqa: S105
    """A value was given to a running task or an app."""
    SEALING_KEY_ROTATE = "sealing-key.rotate"
    IDENTITY_TOKEN_CREATE = "identity-token.create"  # noqa: S105
    TRIGGER_DEPLOY = "trigger.deploy"
    TRIGGER_ACTIVATE = "trigger.activate"
    TRIGGER_DEACTIVATE = "trigger.deactivate"
    TRIGGER_DELETE = "trigger.delete"
    TRIGGER_SUSPEND = "trigger.suspend"
    TRIGGER_MISS = "trigger.miss"
    ACCESS_REFUSE = "access.refuse"
    AUTH_REFUSE = "auth.refuse"
    CALL_CANCEL = "call.cancel"


class Outcome(StrEnum):
    """How it ended. Cancelled is neither allowed nor failed, and there are two kinds of it.

    A call of a known caller who went away before all of it had arrived (`call.cancel`). Once it has arrived
    it is carried out, whether or not somebody waits for the answer: the record is that of its effect. And an
    action that was ended before its time (`run.finish`): by somebody, or by the end of what asked for it.
    """

    ALLOWED = "allowed"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True)  # not frozen: for this many fields that would cost 2 µs on each of them
class Record:
    """The facts of one event; never change one. Never a secret: credentials appear by their public id.

    `at` is seconds since the epoch (UTC); `actors` are "kind:id", oldest first; `action` and `resource` are
    written as in `tower.policy.actions`; `decision` names the policies; `detail` is small and fit for JSON.
    """

    at: float
    event: Event
    outcome: Outcome
    subject: str
    credential_kind: str
    credential_id: str
    actors: tuple[str, ...] = ()
    action: str = ""
    resource: str = ""
    request_id: str = ""
    decision: str = ""
    policy_revision: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record in its place in the chain, exactly as stored: also a damaged one must be readable.

    `actors` and `detail` are JSON texts; `app` is `project/domain/name` of the app nearest to the person,
    `run` that of the run that the record is about, or from inside which the call came.
    """

    seq: int
    at: float
    event: str
    outcome: str
    subject: str
    credential_kind: str
    credential_id: str
    actors: str
    app: str
    action: str
    resource: str
    request_id: str
    decision: str
    policy_revision: str
    detail: str
    run: str
    previous: str
    hash: str

    def digest(self) -> str:
        """The hash that this entry should have: SHA-256 over everything else in it, in hexadecimal."""
        return _digest(self.seq, self.at, *(str(getattr(self, name)) for name in _FACTS[2:]))


class Head(NamedTuple):
    """The end of a chain: what to keep outside the store, to notice that the store was cut or rewritten."""

    seq: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The end of the chain at some time, signed: who can write the store still cannot make one.

    `key_id` is the RFC 7638 thumbprint of the signing key, `signature` is Ed25519 over `payload`, base64url.
    """

    seq: int
    hash: str
    at: float
    key_id: str
    signature: str

    @property
    def head(self) -> Head:
        """The end of the chain that it vouches for."""
        return Head(self.seq, self.hash)


def checkpoint_payload(head: Head, at: float) -> bytes:
    """What a checkpoint's signature is over: the first line keeps it apart from all else that is signed."""
    return f"tower.audit.checkpoint.1\n{head.seq}\n{head.hash}\n{at!r}\n".encode()


class Damage(StrEnum):
    """What can be wrong with a chain."""

    EDITED = "edited"
    MISSING = "missing"
    REORDERED = "reordered"
    REPLACED = "replaced"
    TRUNCATED = "truncated"
    FORGED = "forged"


@dataclass(frozen=True, slots=True)
class Break:
    """The first place where a chain does not hold."""

    seq: int
    damage: Damage

    def __str__(self) -> str:
        return f"record {self.seq}: {_MEANING[self.damage]}"


_MEANING = {
    Damage.EDITED: "its content is not what its hash was made of",
    Damage.MISSING: "it is not there, and later ones are",
    Damage.REORDERED: "it stands where another record belongs",
    Damage.REPLACED: "it is not the record that the chain, or the head that was kept, goes on from",
    Damage.TRUNCATED: "it and all that followed are gone",
    Damage.FORGED: "it has a checkpoint that our key did not sign",
}

_FACTS = tuple(name for name in Entry.__dataclass_fields__ if name != "hash")
_quoted = json.encoder.encode_basestring_ascii
_compact = json.JSONEncoder(separators=(",", ":"))
_sorted = json.JSONEncoder(separators=(",", ":"), sort_keys=True, allow_nan=False)


def _digest(seq: int, at: float, *facts: str) -> str:
    """Every fact with its length before it, so that none can pass for a part of its neighbour."""
    return _hash(_framed(_FORM, str(seq), repr(at), *facts))


def _framed(*texts: str) -> str:
    return "".join([f"{len(text)}:{text}" for text in texts])


def _hash(framed: str) -> str:
    return hashlib.sha256(framed.encode(errors="surrogatepass")).hexdigest()


def seal(record: Record, *, after: Head) -> Entry:
    """Give a record its place after `after`. Raises TypeError or ValueError for a `detail` unfit for JSON."""
    return Entry(*sealed(record, after=after))


def sealed(record: Record, *, after: Head) -> tuple[Any, ...]:
    """The values of the entry that `seal` makes, in the order of its fields."""
    seq, at, event, outcome = after.seq + 1, float(record.at), record.event._value_, record.outcome._value_
    who, who_framed = _who(record.subject, record.credential_kind, record.credential_id, record.actors)
    what = (
        str(record.action),
        record.resource,
        record.request_id,
        record.decision,
        record.policy_revision,
        _json(record.detail) if record.detail else "{}",
        _run(record),
        after.hash,
    )
    first = _framed(_FORM, str(seq), repr(at), event, outcome)
    return (seq, at, event, outcome, *who, *what, _hash(first + who_framed + _framed(*what)))


@lru_cache(maxsize=16_384)
def _who(
    subject: str, credential_kind: str, credential_id: str, actors: tuple[str, ...]
) -> tuple[tuple[str, ...], str]:
    """The facts of an entry that say who it was, and the same framed: a caller is seldom seen once."""
    facts = (
        subject,
        str(credential_kind),
        credential_id,
        _compact.encode(actors) if actors else "[]",
        next((actor.removeprefix("app:") for actor in actors if actor.startswith("app:")), ""),
    )
    return facts, _framed(*facts)


def _json(detail: Mapping[str, Any]) -> str:
    for each in detail.values():
        if type(each) is not str:
            return _sorted.encode(dict(detail))
    # the usual kind, all text: what the encoder would write, without setting it up
    return "{" + ",".join([f"{_quoted(name)}:{_quoted(detail[name])}" for name in sorted(detail)]) + "}"


def _run(record: Record) -> str:
    about = record.detail.get("run")
    if isinstance(about, str) and about:
        return about
    inside = [actor for actor in record.actors if actor.startswith("run:")]
    named = record.resource if record.resource.startswith("run:") else inside[-1] if inside else ""
    parts = named.removeprefix("run:").split("/")
    return "/".join(parts[:3]) if len(parts) >= 3 else ""


def verify(entries: Iterable[Entry], *, head: Head | None = None, after: Head | None = None) -> Break | None:
    """The first break of a chain, or None when it holds.

    `entries` come in the order of the store, from the first one or from the one behind `after`. `head`, kept
    from an earlier look, must be one of them: otherwise the chain was cut or made anew since.
    """
    last = after or Head()
    for entry in entries:
        if entry.seq > last.seq + 1:
            return Break(last.seq + 1, Damage.MISSING)
        if entry.seq <= last.seq:
            return Break(entry.seq, Damage.REORDERED)
        if entry.digest() != entry.hash:
            return Break(entry.seq, Damage.EDITED)
        if entry.previous != last.hash:
            # this one is intact, so the one before it is not the one that it was chained to
            return Break(max(last.seq, 1), Damage.REPLACED)
        if head is not None and entry.seq == head.seq and entry.hash != head.hash:
            return Break(entry.seq, Damage.REPLACED)
        last = Head(entry.seq, entry.hash)
    if head is not None and head.seq > last.seq:
        return Break(last.seq + 1, Damage.TRUNCATED)
    return None
