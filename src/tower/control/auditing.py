"""The audit chain as a whole: signed now and then, exported, pruned. Records are written by `Access` alone.

A second after something was recorded the end of the chain is signed, into a file beside the database: who
gets at the database alone cannot cut it unseen. A signature that is a row, and so goes along with exports, is
made every thousand records, every minute in which something happened, when somebody asks, and at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from tower.audit import Break, Checkpoint, Damage, Entry, Event
from tower.clock import Clock
from tower.control.access import Access
from tower.control.provenance import Tracing
from tower.control.proving import (
    Genuine,
    Proof,
    checkpoint_line,
    header,
    prove,
    prove_since,
    record_line,
    sign,
    signed_by_us,
)
from tower.control.vouching import Vouched, Vouching
from tower.control.vouching import kept as vouched
from tower.errors import Fault, Invalid, Precondition
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Principal
from tower.identity.signing import SigningKey
from tower.policy.actions import Action, Resource, ResourceType
from tower.store import audit as store
from tower.store.database import Database, Reader, Transaction

__all__ = ["Auditing", "Part", "Pruned", "prove_home"]

HEAD_FILE = "audit-head"
"""In the home: the last signature, as one line of JSON."""

PART = 1000
SECONDS_BETWEEN = 60.0
PROMPT = 1.0
"""So many seconds after its commit a record is signed, at most; the commit itself has no part in that."""
_SECONDS_BETWEEN_PRUNES = 3600.0
_ORG = Resource(ResourceType.ORG)
_log = structlog.get_logger("tower.audit")


@dataclass(frozen=True, slots=True)
class Part:
    """Some records in the order of the chain, checkpoints among them; where to go on, None at the end."""

    entries: list[Entry]
    checkpoints: list[Checkpoint]
    next: int | None


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many records went, and the last of them: the chain begins behind it now."""

    records: int
    through: int


class Auditing:
    """The use-cases of `/api/v1/audit` on the chain, and the loop that signs it."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        access: Access,
        vouching: Vouching,
        home: Path,
        retention: float | None = None,
        seconds: float = SECONDS_BETWEEN,
    ) -> None:
        """`retention` in seconds: older records are pruned; None keeps all. `seconds` between rows."""
        self._db = db
        self._clock = clock
        self._access = access
        self._vouching = vouching
        self._home = home
        self._retention = retention
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None
        self._signed_at = clock.now()
        self._pruned_at = clock.now()
        self._looked: int | None = None
        self._kept = 0
        self._keeping = asyncio.Lock()

    def start(self) -> None:
        """Begin to sign."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Sign what there is and end. Before the database closes."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self.checkpoint(everything=True)

    async def checkpoint(self, *, everything: bool = False) -> Checkpoint | None:
        """Sign the end of the chain; None when nothing was recorded since the last time.

        What was counted and is over is written before, with `everything` also what is not over.
        """

        def write(tx: Transaction) -> Checkpoint | None:
            end = store.end_of(tx)
            if end.seq == 0 or store.checkpoints(tx, after=end.seq - 1):
                return None
            made = sign(key, end, tx.now)
            store.add_checkpoint(tx, made)
            return made

        await self._access.settle(everything=everything)
        key = self._vouching.current()
        made = await self._db.write(write)
        if made is not None:
            await self._keep(made)
        return made

    async def seal(self) -> Checkpoint | None:
        """Sign the end of the chain into the file alone; None when that holds it already.

        What is read is on the disk: whatever writes a record waits for that.
        """
        end = await self._db.read(store.head)
        if end.seq <= self._kept:
            return None
        made = sign(self._vouching.current(), end, self._clock.now())
        await self._keep(made)
        return made

    async def signed(self, principal: Principal, *, request_id: str = "") -> int:
        """Sign the end of the chain now; the number of the last record that is under a signature."""
        await self._access.require(principal, Action.AUDIT_VIEW, _ORG, request_id=request_id)
        await self.checkpoint()
        await self.seal()
        return self._kept

    async def turn(self) -> None:
        """Do what is due: a row, or just the file when something was committed; and prune."""
        now, due = self._clock.now(), self._access.due.is_set()
        if due or not 0 <= now - self._signed_at < self._seconds:
            self._access.due.clear()
            self._signed_at = now
            await self.checkpoint()
        else:
            version = self._db.version()
            if version != self._looked:
                await self.seal()
                self._looked = version
        if self._retention is not None and now - self._pruned_at > _SECONDS_BETWEEN_PRUNES:
            self._pruned_at = now
            await self.prune(MACHINE, before=now - self._retention)

    async def _keep(self, made: Checkpoint) -> None:
        async with self._keeping:
            if made.seq > self._kept:
                await asyncio.to_thread(_keep, self._home / HEAD_FILE, made)
                self._kept = made.seq

    async def part(
        self, principal: Principal, *, after: int = 0, limit: int = PART, request_id: str = ""
    ) -> Part:
        """Records behind the number `after` in the order of the chain. The first part is recorded itself."""
        decision = await self._access.require(principal, Action.AUDIT_VIEW, _ORG, request_id=request_id)
        if after == 0:
            await self.checkpoint()
            await self._db.write(
                lambda tx: self._access.record(
                    tx, principal, decision, event=Event.AUDIT_EXPORT, request_id=request_id
                )
            )
        return await self._read(after, max(1, min(limit, PART)))

    async def export(self, principal: Principal, *, request_id: str = "") -> AsyncIterator[bytes]:
        """The whole chain as JSON lines: a header, records with checkpoints among them, and an end."""
        part = await self.part(principal, request_id=request_id)
        return self._lines(part)

    async def prune(self, principal: Principal, *, before: float, request_id: str = "") -> Pruned:
        """Remove the records that a checkpoint signed before this time vouches for; it stays as beginning.

        Raises Precondition when what would go does not hold: then it must be looked at, not removed.
        """
        decision = await self._access.require(principal, Action.AUDIT_PRUNE, _ORG, request_id=request_id)
        if before > self._clock.now():
            raise Invalid("The time lies in the future.")
        through = await self._db.read(lambda reader: store.checkpoint_before(reader, before))
        if through is None:
            return Pruned(0, 0)
        proof = await asyncio.to_thread(
            self._db.read_now, lambda reader: _prove(reader, self._genuine(), None)
        )
        if proof.broken is not None:
            raise Precondition("The audit chain does not hold.", hint="Run tower audit verify.")

        def write(tx: Transaction) -> Pruned:
            records = store.prune(tx, through)
            if records:
                detail = {"through": through.seq, "hash": through.hash, "records": records}
                self._access.record(
                    tx, principal, decision, event=Event.AUDIT_PRUNE, request_id=request_id, detail=detail
                )
            return Pruned(records, through.seq)

        return await self._db.write(write)

    def public_keys(self) -> tuple[Vouched, ...]:
        """The public keys that checkpoints are checked with, beside the installation's own."""
        return self._vouching.keys()

    def _genuine(self) -> Genuine:
        return signed_by_us(self._vouching.root, self.public_keys())

    async def _read(self, after: int, limit: int) -> Part:
        def read(reader: Reader) -> Part:
            entries = store.chain(reader, after=after, limit=limit)
            last = entries[-1].seq if entries else after
            signed = [
                each
                for each in store.checkpoints(reader, after=after - 1 if after == 0 else after)
                if each.seq <= last
            ]
            if after == 0 and entries and entries[0].seq > 1:
                signed = [each for each in signed if each.seq >= entries[0].seq - 1]
            return Part(entries, signed, last if len(entries) == limit else None)

        return await self._db.read(read)

    async def _lines(self, part: Part) -> AsyncIterator[bytes]:
        after = part.entries[0].seq - 1 if part.entries else 0
        yield _line(header(after, key_id=self._vouching.root.kid, keys=self.public_keys()))
        last = after
        while True:
            text = [(entry.seq, 0, record_line(entry)) for entry in part.entries]
            text += [(each.seq, 1, checkpoint_line(each)) for each in part.checkpoints]
            yield b"".join(_line(value) for _, _, value in sorted(text, key=lambda item: item[:2]))
            last = part.entries[-1].seq if part.entries else last
            if part.next is None:
                break
            part = await self._read(part.next, PART)
        yield _line({"type": "end", "seq": last})

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(PROMPT, self._seconds)):
                    await self._access.due.wait()
            try:
                await self.turn()
            except (Fault, OSError) as error:
                _log.error("audit.checkpoint", problem=str(error))


def prove_home(
    home: Path, reader: Reader, *, genuine: Genuine | None = None, tracing: Tracing | None = None
) -> Proof:
    """Look at the chain in a home, also that of a running Tower: `reader` has not read anything yet.

    `genuine` checks signatures in place of the home's own key; `tracing` sees every record.
    """
    kept = _kept(home / HEAD_FILE)  # before the snapshot of the database: it must not be ahead of that
    if genuine is None:
        genuine = signed_by_us(SigningKey.load_or_create(home / "signing.key"), vouched(home))
    return _prove(reader, genuine, kept, tracing)


def prove_end(home: Path, reader: Reader, *, genuine: Genuine) -> Proof:
    """Look at the end of the chain in a home: from the last checkpoint on, and whether any number is missing.

    That takes no longer as the trail grows. What lies before the checkpoint is looked at by `prove_home`.
    """
    kept = _kept(home / HEAD_FILE)
    last = store.last_checkpoint(reader)
    if last is None:
        return _prove(reader, genuine, kept)
    proof = prove_since(last, store.whole(reader, after=last.seq - 1), kept=kept, genuine=genuine)
    missing = store.gap(reader)
    if missing is not None and (proof.broken is None or missing < proof.broken.seq):
        proof = replace(proof, broken=Break(missing, Damage.MISSING))
    return proof


def _prove(
    reader: Reader, genuine: Genuine, kept: Checkpoint | None, tracing: Tracing | None = None
) -> Proof:
    known = store.checkpoints(reader)
    extra = [] if kept is None or kept in known else [kept]
    return prove(store.whole(reader), [*known, *extra], genuine=genuine, tracing=tracing)


def _keep(path: Path, checkpoint: Checkpoint) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_line(checkpoint_line(checkpoint)))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _kept(path: Path) -> Checkpoint | None:
    try:
        value = json.loads(path.read_text())
        del value["type"]
        return Checkpoint(**value)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Precondition(
            f"{path} is damaged.", hint="Compare with a copy of it.", cause=str(error)
        ) from None


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n"
