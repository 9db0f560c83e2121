"""Whether an audit chain is whole: every record in its place, every checkpoint signed by a key of ours. Pure.

A chain may begin behind a checkpoint: older records were pruned, which a record of its own says.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from tower.audit import Break, Checkpoint, Damage, Entry, Event, Head, checkpoint_payload, verify
from tower.control.provenance import Tracing
from tower.control.vouching import Vouched, trusted
from tower.control.vouching import line as key_line
from tower.control.vouching import read as read_key
from tower.errors import Invalid
from tower.identity.signing import SigningKey

FORM = "tower.audit.export.1"

LONGEST_LINE = 8 << 20
"""No line of an export comes near to so many bytes."""

_LARGEST_NUMBER = (1 << 63) - 1
_MOST_SAID = 200

Genuine = Callable[[Checkpoint], bool]
"""Whether our key signed a checkpoint."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was looked at and the first thing wrong, if any. The last record under a signature is `signed`."""

    records: int
    first: int
    last: int
    signed: int
    broken: Break | None


@dataclass(frozen=True, slots=True)
class Export:
    """What an exported file holds."""

    entries: tuple[Entry, ...]
    checkpoints: tuple[Checkpoint, ...]
    after: int
    ended: bool
    keys: tuple[Vouched, ...] = ()


def sign(key: SigningKey, head: Head, at: float) -> Checkpoint:
    """A checkpoint of this end of the chain."""
    private = key.key.private_key
    assert isinstance(private, Ed25519PrivateKey)
    signature = private.sign(checkpoint_payload(head, at))
    text = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    return Checkpoint(head.seq, head.hash, at, key.kid, text)


def signed_by(public: Ed25519PublicKey, kid: str, keys: Iterable[Vouched] = ()) -> Genuine:
    """A check of signatures by an installation's own key, or by one of `keys` that it vouches for."""
    known = trusted(public, kid, keys)

    def genuine(checkpoint: Checkpoint) -> bool:
        public = known.get(checkpoint.key_id)
        if public is None:
            return False
        try:
            signature = base64.urlsafe_b64decode(checkpoint.signature + "==")
            public.verify(signature, checkpoint_payload(checkpoint.head, checkpoint.at))
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True

    return genuine


def signed_by_us(key: SigningKey, keys: Iterable[Vouched] = ()) -> Genuine:
    """A check of signatures by this Tower's own key, or by one of `keys` that it vouches for."""
    private = key.key.private_key
    assert isinstance(private, Ed25519PrivateKey)
    return signed_by(private.public_key(), key.kid, keys)


def signed_by_file(path: Path, keys: Iterable[Vouched] = ()) -> Genuine:
    """A check of signatures by the key in a PEM file, or by one that it vouches for. Raises Invalid."""
    try:
        pem = path.read_bytes()
        public = load_pem_public_key(pem)
        kid = OKPKey.import_key(pem).thumbprint()
    except (OSError, ValueError, JoseError) as error:
        raise Invalid(f"{path} is no public key.", cause=str(error)) from None
    if not isinstance(public, Ed25519PublicKey):
        raise Invalid(f"{path} is no Ed25519 public key.")
    return signed_by(public, kid, keys)


def prove(
    entries: Iterable[Entry],
    checkpoints: Sequence[Checkpoint],
    *,
    genuine: Genuine,
    tracing: Tracing | None = None,
) -> Proof:
    """Look at a whole chain. `checkpoints` may hold some from elsewhere, as one kept outside the store.

    `tracing` sees every record on the way.
    """
    look = _Look(checkpoints, genuine)
    if tracing is not None:
        entries = tracing.along(entries)
    broken = look.forged() or look.along(entries) or look.ending()
    return Proof(look.records, look.first, look.last.seq, look.signed, broken)


def prove_since(
    checkpoint: Checkpoint, entries: Iterable[Entry], *, kept: Checkpoint | None, genuine: Genuine
) -> Proof:
    """Look at the end of a chain: the record that a checkpoint is about, and those `entries` behind it.

    `entries` begin with that record. `kept` is a checkpoint from outside the store, where there is one.
    """
    first, signed = checkpoint.seq, checkpoint.seq

    def found(records: int, last: int, broken: Break | None) -> Proof:
        return Proof(records, first, last, signed, broken)

    for each in (checkpoint, *(() if kept is None else (kept,))):
        if not genuine(each):
            return found(0, 0, Break(each.seq, Damage.FORGED))
    source = iter(entries)
    begin = next(source, None)
    if begin is None or begin.seq != checkpoint.seq:
        return found(0, 0, Break(checkpoint.seq, Damage.MISSING))
    if begin.hash != checkpoint.hash:
        return found(0, 0, Break(begin.seq, Damage.REPLACED))
    seen = [begin.seq]

    def along() -> Iterator[Entry]:
        yield begin
        for entry in source:
            seen.append(entry.seq)
            yield entry

    head = None if kept is None or kept.seq < begin.seq else kept.head
    broken = verify(along(), head=head, after=Head(begin.seq - 1, begin.previous))
    if head is not None:
        signed = head.seq
    return found(len(seen), seen[-1], broken)


class _Look:
    """One walk along a chain."""

    def __init__(self, checkpoints: Sequence[Checkpoint], genuine: Genuine) -> None:
        self._checkpoints = checkpoints
        self._genuine = genuine
        self._hashes: dict[int, set[str]] = {}
        for each in checkpoints:
            self._hashes.setdefault(each.seq, set()).add(each.hash)
        self._mismatch: Break | None = None
        self._pruned = False
        self.records = self.first = self.signed = 0
        self.last = Head()

    def forged(self) -> Break | None:
        for each in self._checkpoints:
            if not self._genuine(each):
                return Break(each.seq, Damage.FORGED)
        return None

    def along(self, entries: Iterable[Entry]) -> Break | None:
        source = iter(entries)
        first = next(source, None)
        if first is None:
            return None
        anchor = None
        if first.seq > 1:
            known = self._hashes.get(first.seq - 1, set())
            if len(known) != 1:
                return Break(1, Damage.MISSING)
            anchor = Head(first.seq - 1, next(iter(known)))
        self.first = first.seq
        found = verify(self._watched(first, source, anchor), after=anchor)
        if self._mismatch is not None and (found is None or self._mismatch.seq <= found.seq):
            return self._mismatch
        if found is None and anchor is not None and not self._pruned:
            return Break(1, Damage.MISSING)
        return found

    def ending(self) -> Break | None:
        beyond = [each.seq for each in self._checkpoints if each.seq > self.last.seq]
        return Break(self.last.seq + 1, Damage.TRUNCATED) if beyond else None

    def _watched(self, first: Entry, rest: Iterator[Entry], anchor: Head | None) -> Iterator[Entry]:
        entry: Entry | None = first
        while entry is not None:
            wanted = self._hashes.get(entry.seq)
            if wanted is not None:
                if wanted != {entry.hash}:
                    self._mismatch = self._mismatch or Break(entry.seq, Damage.REPLACED)
                self.signed = entry.seq
            if anchor is not None and entry.event == Event.AUDIT_PRUNE:
                self._pruned = self._pruned or _through(entry) == anchor.seq
            self.records += 1
            self.last = Head(entry.seq, entry.hash)
            yield entry
            entry = next(rest, None)


def header(after: int, *, key_id: str, keys: Iterable[Vouched]) -> dict[str, Any]:
    """The first line of an export: where it begins, and the keys that the installation's own vouches for."""
    return {
        "type": "export",
        "form": FORM,
        "after": after,
        "key_id": key_id,
        "keys": [key_line(each) for each in keys],
    }


def record_line(entry: Entry) -> dict[str, Any]:
    """A record as a line of an export: exactly as stored, so that its hash can be made again."""
    return {"type": "record", **{name: getattr(entry, name) for name in Entry.__dataclass_fields__}}


def checkpoint_line(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint as a line of an export."""
    values = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    return {"type": "checkpoint", **values}


def read_export(lines: Iterable[str | bytes]) -> Export:
    """What is in an exported file, whoever wrote it. Raises Invalid naming the line that is none."""
    entries: list[Entry] = []
    checkpoints: list[Checkpoint] = []
    after, ended = 0, False
    keys: tuple[Vouched, ...] = ()
    for number, line in enumerate(lines, 1):
        try:
            if len(line) > LONGEST_LINE:
                raise ValueError(f"it is longer than {LONGEST_LINE} bytes")
            value = json.loads(line.decode() if isinstance(line, bytes) else line)
            kind = value.pop("type")
            if kind == "record":
                entries.append(_exactly(Entry, value))
            elif kind == "checkpoint":
                checkpoints.append(_exactly(Checkpoint, value))
            elif kind == "export" and number == 1:
                after = _number(value["after"])
                keys = tuple(map(read_key, value.get("keys", ())))
            elif kind == "end":
                ended = value["seq"] == (entries[-1].seq if entries else after)
            else:
                raise ValueError("a line of an unknown type")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            cause = str(error)[:_MOST_SAID]
            raise Invalid(f"Line {number} is no line of an audit export.", cause=cause) from None
    return Export(tuple(entries), tuple(checkpoints), after, ended, keys)


def prove_export(export: Export, *, genuine: Genuine, tracing: Tracing | None = None) -> Proof:
    """Look at an exported chain: also its last line must be there."""
    proof = prove(export.entries, export.checkpoints, genuine=genuine, tracing=tracing)
    if proof.broken is None and not export.ended:
        missing = Break(proof.last + 1, Damage.TRUNCATED)
        return Proof(proof.records, proof.first, proof.last, proof.signed, missing)
    return proof


def _through(entry: Entry) -> int:
    try:
        return int(json.loads(entry.detail)["through"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return -1


def _exactly(kind: type[Any], value: dict[str, Any]) -> Any:
    """A dataclass from a JSON object with exactly its fields, numbers and texts where they belong."""
    wanted = {each.name: each.type for each in fields(kind)}
    if value.keys() != wanted.keys():
        raise ValueError("other fields than a record has")
    types: dict[Any, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
    for name, type_ in wanted.items():
        if not isinstance(value[name], types[type_]) or isinstance(value[name], bool):
            raise TypeError(f"the field {name}")
    value["at"] = float(value["at"])
    if not math.isfinite(value["at"]):
        raise ValueError("the field at")
    value["seq"] = _number(value["seq"])
    return kind(**value)


def _number(value: Any) -> int:
    """The number of a record, as a database can hold it."""
    if type(value) is not int or not 0 <= value <= _LARGEST_NUMBER:
        raise ValueError("the number of a record")
    return value
