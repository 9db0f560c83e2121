"""One coroutine function, two calls: `f(...)` blocks, `f.aio(...)` is awaited.

The blocking call runs on one background event loop, so it also works where a loop is already running (which
it then blocks). The awaited call runs on the caller's own loop. Both see the caller's context variables as
they were at the call, and only so: a generator that Alice began stays Alice's when it is resumed from Bob's
request.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import inspect
import os
import threading
import types
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


class _Background:
    """An event loop on a daemon thread, started at the first use and again after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                ready = threading.Event()
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(loop, ready), name="flyte", daemon=True)
                self._thread.start()
                ready.wait()
                self._loop = loop
            return self._loop

    def is_here(self) -> bool:
        return self._thread is not None and self._thread.ident == threading.get_ident()

    def forget(self) -> None:
        """After a fork: the thread exists in the parent only, and the lock may be held by nobody."""
        self._lock = threading.Lock()
        self._loop = self._thread = None

    def stop(self) -> None:
        """Close connections and end the thread. Called when the interpreter exits."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None and not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=2)


def _serve(loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
    asyncio.set_event_loop(loop)
    loop.call_soon(ready.set)
    try:
        loop.run_forever()
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


_background = _Background()
atexit.register(_background.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_background.forget)


def _blocking(step: Callable[[], Awaitable[R]], context: contextvars.Context) -> R:
    """Run one awaitable in `context`, away from the calling thread, and wait for what it gives."""
    if _background.is_here():
        # A blocking call from code that itself runs on the background loop: that loop cannot serve it.
        return _elsewhere(step, context)
    loop = _background.loop()
    done: concurrent.futures.Future[R] = concurrent.futures.Future()
    tasks: list[asyncio.Task[R]] = []
    loop.call_soon_threadsafe(_start, loop, step, context, done, tasks)
    try:
        return done.result()
    except BaseException:
        # KeyboardInterrupt arrives in the waiting thread; the work must not go on behind its back.
        if not done.done():
            loop.call_soon_threadsafe(_cancel, tasks)
        raise
    finally:
        # An error holds this frame. What holds the error in turn would leave both to the collector, with the
        # arguments of the call and its connections.
        del done, tasks


def _start(
    loop: asyncio.AbstractEventLoop,
    step: Callable[[], Awaitable[R]],
    context: contextvars.Context,
    done: concurrent.futures.Future[R],
    tasks: list[asyncio.Task[R]],
) -> None:
    task = loop.create_task(_awaited(step), context=context)
    tasks.append(task)
    task.add_done_callback(lambda ended: _settle(ended, done))


def _cancel(tasks: list[asyncio.Task[R]]) -> None:
    for task in tasks:
        task.cancel()


def _elsewhere(step: Callable[[], Awaitable[R]], context: contextvars.Context) -> R:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(context.run, asyncio.run, _awaited(step)).result()


async def _awaited(step: Callable[[], Awaitable[R]]) -> R:
    return await step()


def _settle(task: asyncio.Task[R], done: concurrent.futures.Future[R]) -> None:
    if done.cancelled():
        return
    if task.cancelled():
        done.cancel()
        done.set_running_or_notify_cancel()
        return
    error = task.exception()
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(task.result())


@types.coroutine
def _steered(context: contextvars.Context, work: Any) -> Generator[Any, Any, Any]:
    """Run a coroutine on the present loop and task, but each of its steps inside `context`."""
    call: Callable[..., Any] = work.send
    argument: Any = None
    while True:
        try:
            signal = context.run(call, argument)
        except StopIteration as stop:
            result: Any = stop.value
            return result
        try:
            argument = yield signal
            call = work.send
        except GeneratorExit:
            context.run(work.close)
            raise
        except BaseException as error:  # noqa: BLE001 - handed to the coroutine, which decides
            call, argument = work.throw, error


async def _native(context: contextvars.Context, work: Coroutine[Any, Any, R]) -> R:
    result: R = await _steered(context, work)
    return result


class Iteration(Generic[T]):
    """An async generator seen from one captured context, iterable by `async for`."""

    def __init__(self, source: AsyncGenerator[T, None], context: contextvars.Context) -> None:
        self._source = source
        self._context = context

    def __aiter__(self) -> Iteration[T]:
        return self

    async def __anext__(self) -> T:
        item: T = await _steered(self._context, self._source.__anext__())
        return item

    async def aclose(self) -> None:
        """End the generator early; what it holds open is closed."""
        await _steered(self._context, self._source.aclose())

    async def __aenter__(self) -> Iteration[T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _iterate(source: AsyncGenerator[T, None], context: contextvars.Context) -> Iterator[T]:
    try:
        while True:
            try:
                yield _blocking(source.__anext__, context)
            except StopAsyncIteration:
                return
    finally:
        _blocking(source.aclose, context)


class _Named:
    """Looks like the function it stands for: name, documentation and signature."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__wrapped__ = function
        self.__name__ = getattr(function, "__name__", type(self).__name__)
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__

    def __repr__(self) -> str:
        return f"<{self.__module__}.{self.__qualname__}, blocking; .aio to await>"


class Syncified(_Named, Generic[P, R]):
    """A coroutine function with a blocking call and an awaited one."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        context = contextvars.copy_context()
        function = self._function
        result: R = _blocking(lambda: function(*args, **kwargs), context)
        return result

    def aio(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """The same on the caller's own event loop."""
        context = contextvars.copy_context()
        return _native(context, self._function(*args, **kwargs))

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> Syncified[P, R]: ...
    @overload
    def __get__(
        self: Syncified[Concatenate[Any, Q], R], instance: object, owner: type[Any], /
    ) -> Syncified[Q, R]: ...
    def __get__(self, instance: object | None, owner: type[Any], /) -> Syncified[Any, R]:
        if instance is None:
            return self
        return Syncified(types.MethodType(self._function, instance))


class SyncifiedIterator(_Named, Generic[P, T]):
    """An async generator function with a blocking iteration and an async one."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        context = contextvars.copy_context()
        return _iterate(self._function(*args, **kwargs), context)

    def aio(self, /, *args: P.args, **kwargs: P.kwargs) -> Iteration[T]:
        """The same on the caller's own event loop."""
        context = contextvars.copy_context()
        return Iteration(self._function(*args, **kwargs), context)

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> SyncifiedIterator[P, T]: ...
    @overload
    def __get__(
        self: SyncifiedIterator[Concatenate[Any, Q], T], instance: object, owner: type[Any], /
    ) -> SyncifiedIterator[Q, T]: ...
    def __get__(self, instance: object | None, owner: type[Any], /) -> SyncifiedIterator[Any, T]:
        if instance is None:
            return self
        return SyncifiedIterator(types.MethodType(self._function, instance))


class SyncifiedClass(Generic[P, R]):
    """A coroutine function bound to the class, not to an instance."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: object | None, owner: type[Any], /) -> Syncified[P, R]:
        return Syncified(types.MethodType(self._function, owner))


class SyncifiedClassIterator(Generic[P, T]):
    """An async generator function bound to the class, not to an instance."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: object | None, owner: type[Any], /) -> SyncifiedIterator[P, T]:
        return SyncifiedIterator(types.MethodType(self._function, owner))


@overload
def syncify(function: Callable[P, Coroutine[Any, Any, R]]) -> Syncified[P, R]: ...
@overload
def syncify(function: Callable[P, AsyncIterator[T]]) -> SyncifiedIterator[P, T]: ...
def syncify(function: Any) -> Any:
    """Give a coroutine function, a method, or an async generator function its two calls.

    On a static method write `@staticmethod` above `@syncify`; on a class method use `syncify_class`.
    """
    if inspect.isasyncgenfunction(function):
        return SyncifiedIterator(function)
    if inspect.iscoroutinefunction(function):
        return Syncified(function)
    raise TypeError(f"{function!r} is neither a coroutine function nor an async generator function.")


@overload
def syncify_class(
    function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
) -> SyncifiedClass[P, R]: ...
@overload
def syncify_class(
    function: Callable[Concatenate[Any, P], AsyncIterator[T]],
) -> SyncifiedClassIterator[P, T]: ...
def syncify_class(function: Any) -> Any:
    """The same for a class method; stands above `@classmethod`."""
    plain = function.__func__ if isinstance(function, classmethod) else function
    if inspect.isasyncgenfunction(plain):
        return SyncifiedClassIterator(plain)
    if inspect.iscoroutinefunction(plain):
        return SyncifiedClass(plain)
    raise TypeError(f"{plain!r} is neither a coroutine function nor an async generator function.")
