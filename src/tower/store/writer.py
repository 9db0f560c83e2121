"""The one thread that writes: what waits together shares one transaction and one fsync (group commit)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Engine, Result
from sqlalchemy.exc import SQLAlchemyError

from tower.clock import Clock
from tower.errors import Unavailable
from tower.store.transaction import Session, Transaction

T = TypeVar("T")
_LARGEST_BATCH = 256
_ENOUGH = 64
"""So many requests are handed over at once, although a turn of the event loop might bring more."""


class Request:
    """One function on its way through the writer, with the future that its caller waits on."""

    __slots__ = ("callbacks", "durable", "error", "function", "future", "loop", "result", "simple")

    def __init__(
        self,
        function: Callable[[Transaction], Any],
        loop: asyncio.AbstractEventLoop,
        *,
        durable: bool,
        simple: bool,
    ) -> None:
        self.function = function
        self.durable = durable
        self.simple = simple
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.callbacks: list[Callable[[], object]] = []
        self.result: Any = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        """Resume the caller, if it still waits. In the event loop."""
        for callback in self.callbacks:
            try:
                callback()
            except Exception as error:  # noqa: BLE001  (one callback's fault is not the next caller's)
                self.loop.call_exception_handler({"message": "a callback after a commit", "exception": error})
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Runs functions one after the other in its own thread and answers each after the commit of its batch."""

    def __init__(self, engine: Engine, *, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._queue: SimpleQueue[list[Request] | None] = SimpleQueue()
        self._gathered: list[Request] = []
        self._looked_at = 0
        self._busy = False
        self._home: asyncio.AbstractEventLoop | None = None
        self._home_thread = 0
        self._durable = True
        self._session: Session | None = None
        self._memory: dict[str, Any] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="tower-writer", daemon=True)
        self._thread.start()

    def submit(
        self, function: Callable[[Transaction], T], *, durable: bool = True, simple: bool = False
    ) -> asyncio.Future[T]:
        """Queue a function; the future is done after its commit. Raises Unavailable once closed.

        The function runs also when its caller is cancelled meanwhile: a client that hangs up cannot erase
        the record of what it did.
        """
        if self._closed:
            raise Unavailable("The server is stopping.", hint="Try again in a moment.")
        # to ask for the running loop is a call of the kernel (getpid); a loop that runs in this thread is it
        loop = self._home
        if loop is None or threading.get_ident() != self._home_thread or not loop.is_running():
            loop = asyncio.get_running_loop()
        if self._home is None:
            self._home, self._home_thread = loop, threading.get_ident()
        request = Request(function, loop, durable=durable, simple=simple)
        if loop is not self._home:
            self._queue.put([request])
            return request.future
        self._gathered.append(request)
        if len(self._gathered) == 1 and not self._busy:
            self._look_again()
        return request.future

    def hand_over(self) -> None:
        """Give the thread what was gathered. In the event loop."""
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._busy = True
            self._queue.put(gathered)

    def finish(self) -> None:
        """Take nothing more; the thread ends after what was queued. In the event loop, before `join`."""
        if not self._closed:
            self._closed = True
            self.hand_over()
            self._queue.put(None)

    def join(self) -> None:
        """Wait for the end of the thread. Blocks."""
        self._thread.join()

    def _look_again(self) -> None:
        assert self._home is not None
        self._looked_at = len(self._gathered)
        self._home.call_soon(self._gather)

    def _gather(self) -> None:
        """Hand over once a turn of the loop has brought nobody new.

        A commit costs as much as ten rows, besides the disk: so those on their way go with it, and while the
        thread is busy with one batch the next one only grows.
        """
        if self._looked_at < len(self._gathered) < _ENOUGH:
            self._look_again()
        else:
            self.hand_over()

    def _answered(self, batch: list[Request]) -> None:
        """Resume the callers of a batch. In the event loop."""
        self._busy = False
        for request in batch:
            request.answer()
        if self._gathered:
            self._look_again()

    def _run(self) -> None:
        going = True
        while going:
            batch: list[Request] = []
            entry = self._queue.get()
            while entry is not None:
                batch += entry
                if len(batch) >= _LARGEST_BATCH:
                    break
                try:
                    entry = self._queue.get_nowait()
                except Empty:
                    break
            going = entry is not None
            if batch:
                self._process(batch)
                self._answer(batch)
        self._drop_session()

    def _process(self, batch: list[Request]) -> None:
        memory = dict(self._memory)
        try:
            session = self._begin(durable=any(request.durable for request in batch))
            left = self._together(session, batch, memory) if len(batch) > 1 else batch
            for request in left:
                self._perform(session, request, memory, alone=len(batch) == 1)
            if len(batch) == 1 and batch[0].error is not None:
                session.connection.rollback()
                return
            session.connection.commit()
        except Exception as error:  # noqa: BLE001  (the callers get it, the thread must live)
            self._fail(batch, error)
        else:
            self._memory = memory

    def _answer(self, batch: list[Request]) -> None:
        """Hand a finished batch to the event loop of each caller in one go."""
        assert self._home is not None
        for loop in {self._home, *(request.loop for request in batch)}:
            mine = [request for request in batch if request.loop is loop]
            try:
                loop.call_soon_threadsafe(self._answered if loop is self._home else _answer, mine)
            except RuntimeError:  # the loop was closed: its callers are gone, the commit stands
                continue

    def _begin(self, *, durable: bool) -> Session:
        if self._session is None:
            self._session = Session(self._engine.connect())
            self._durable = True
        if durable is not self._durable and self._engine.dialect.name == "sqlite":
            # WAL: a later durable commit brings the others before it to the disk as well
            self._session.run(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        self._session.connection.begin()
        return self._session

    def _together(self, session: Session, batch: list[Request], memory: dict[str, Any]) -> list[Request]:
        """Run the simple functions of a batch with their rows inserted together; answers those left to run.

        When one fails, nothing of theirs stays, and each of them runs again by itself.
        """
        simple = [request for request in batch if request.simple]
        if len(simple) < 2:
            return batch
        learnt = dict(memory)
        session.run("SAVEPOINT simple")
        session.holding = True
        try:
            for request in simple:
                transaction = Transaction(session, now=self._clock.now(), memory=learnt)
                result = request.result = request.function(transaction)
                if result is not None:
                    _refuse_lazy(result)
                request.callbacks, own = transaction._end()
                learnt.update(own)
            session.flush()
        except Exception:  # noqa: BLE001  (whose it is shows when each runs by itself)
            session.forget()
            session.holding = False
            for request in simple:
                request.result, request.callbacks = None, []
            session.run("ROLLBACK TO simple")
            session.run("RELEASE simple")
            return batch
        finally:
            session.holding = False
        session.run("RELEASE simple")
        memory.update(learnt)
        return [request for request in batch if not request.simple]

    def _perform(self, session: Session, request: Request, memory: dict[str, Any], *, alone: bool) -> None:
        """Run one function inside its savepoint; alone in its batch, the transaction itself serves as one."""
        transaction = Transaction(session, now=self._clock.now(), memory=memory)
        if not alone:
            session.run("SAVEPOINT part")
        try:
            request.result = request.function(transaction)
            _refuse_lazy(request.result)
        except BaseException as error:  # noqa: BLE001  (it is raised in the caller)
            transaction._end()
            request.error = RuntimeError("StopIteration") if isinstance(error, StopIteration) else error
            if not alone:
                session.run("ROLLBACK TO part")
                session.run("RELEASE part")
            return
        if not alone:
            session.run("RELEASE part")
        request.callbacks, own = transaction._end()
        memory.update(own)

    def _fail(self, batch: list[Request], error: Exception) -> None:
        """Nothing of the batch was committed, or nobody can say: forget all that was derived from it."""
        self._drop_session()
        self._memory = {}
        for request in batch:
            request.callbacks = []
            if request.error is None:
                request.error = Unavailable(
                    "The database did not take the change.", hint="Try again.", cause=str(error)
                )

    def _drop_session(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        try:
            session.connection.close()
        except SQLAlchemyError:
            session.connection.invalidate()


def _refuse_lazy(result: object) -> None:
    if isinstance(result, Coroutine):
        result.close()
        raise TypeError("A writing function is a plain function, not a coroutine function.")
    if isinstance(result, Result):
        raise TypeError("Fetch the rows inside the function: a result does not outlive its transaction.")


def _answer(batch: list[Request]) -> None:
    for request in batch:
        request.answer()
