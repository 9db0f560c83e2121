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


class Request:
    """One function on its way through the writer, with the future that its caller waits on."""

    __slots__ = ("callbacks", "error", "function", "future", "loop", "result")

    def __init__(self, function: Callable[[Transaction], Any]) -> None:
        self.function = function
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
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
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._session: Session | None = None
        self._memory: dict[str, Any] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="tower-writer", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """Queue a function; the future is done after its commit. Raises Unavailable once closed.

        The function runs also when its caller is cancelled meanwhile: a client that hangs up cannot erase
        the record of what it did.
        """
        if self._closed:
            raise Unavailable("The server is stopping.", hint="Try again in a moment.")
        request = Request(function)
        self._queue.put(request)
        return request.future

    def close(self) -> None:
        """Finish what is queued, then end the thread. Blocks."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            batch: list[Request] = []
            entry = self._queue.get()
            while entry is not None:
                batch.append(entry)
                if len(batch) == _LARGEST_BATCH:
                    break
                try:
                    entry = self._queue.get_nowait()
                except Empty:
                    break
            going = entry is not None
            if batch:
                self._process(batch)
                _answer(batch)
        self._drop_session()

    def _process(self, batch: list[Request]) -> None:
        memory = dict(self._memory)
        try:
            session = self._begin()
            for request in batch:
                self._perform(session, request, memory, alone=len(batch) == 1)
            if len(batch) == 1 and batch[0].error is not None:
                session.connection.rollback()
                return
            session.connection.commit()
        except Exception as error:  # noqa: BLE001  (the callers get it, the thread must live)
            self._fail(batch, error)
        else:
            self._memory = memory

    def _begin(self) -> Session:
        if self._session is None:
            self._session = Session(self._engine.connect())
        self._session.connection.begin()
        return self._session

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
    """Hand a finished batch to the event loop of each caller in one go."""
    loops = {request.loop for request in batch}
    for loop in loops:
        mine = batch if len(loops) == 1 else [request for request in batch if request.loop is loop]
        try:
            loop.call_soon_threadsafe(_answer_all, mine)
        except RuntimeError:  # the loop was closed: its callers are gone, the commit stands
            continue


def _answer_all(batch: list[Request]) -> None:
    for request in batch:
        request.answer()
