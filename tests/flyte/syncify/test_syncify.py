from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import threading
import weakref
from collections.abc import AsyncIterator

import pytest

from flyte._syncify import syncify, syncify_class

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


@syncify
async def who(*, after: int = 0) -> str:
    """Says who called."""
    for _ in range(after):
        await asyncio.sleep(0)
    return WHO.get()


@syncify
async def repeat(times: int) -> AsyncIterator[str]:
    for _ in range(times):
        await asyncio.sleep(0)
        yield WHO.get()


class Thing:
    def __init__(self, name: str = "thing") -> None:
        self.name = name

    @syncify
    async def hello(self, greeting: str, *, mark: str = "!") -> str:
        return f"{greeting} {self.name}{mark}"

    @syncify
    async def letters(self) -> AsyncIterator[str]:
        for letter in self.name:
            yield letter

    @syncify_class
    @classmethod
    async def make(cls, name: str) -> Thing:
        return cls(name)

    @syncify_class
    @classmethod
    async def several(cls, *names: str) -> AsyncIterator[Thing]:
        for name in names:
            yield cls(name)

    @staticmethod
    @syncify
    async def double(number: int) -> int:
        return 2 * number


class Special(Thing):
    pass


def test_blocking_calls_of_every_kind() -> None:
    assert Thing("bob").hello("hi", mark="?") == "hi bob?"
    assert list(Thing("abc").letters()) == ["a", "b", "c"]
    assert Thing.make("x").name == "x"
    assert [each.name for each in Thing.several("x", "y")] == ["x", "y"]
    assert Thing.double(4) == 8
    assert Thing().double(4) == 8
    assert who() == "nobody"


async def test_awaited_calls_of_every_kind() -> None:
    assert await Thing("bob").hello.aio("hi") == "hi bob!"
    assert [each async for each in Thing("abc").letters.aio()] == ["a", "b", "c"]
    assert (await Thing.make.aio("x")).name == "x"
    assert [each.name async for each in Thing.several.aio("x", "y")] == ["x", "y"]
    assert await Thing.double.aio(4) == 8


def test_a_class_method_is_bound_to_the_class_it_is_called_on() -> None:
    assert type(Special.make("x")) is Special
    assert [type(each) for each in Special.several("x")] == [Special]


async def test_a_blocking_call_works_inside_a_running_loop() -> None:
    WHO.set("alice")
    assert who() == "alice"
    assert list(repeat(2)) == ["alice", "alice"]


async def test_the_awaited_call_runs_on_the_callers_own_loop_and_task() -> None:
    @syncify
    async def where() -> tuple[object, object]:
        return asyncio.get_running_loop(), asyncio.current_task()

    assert await where.aio() == (asyncio.get_running_loop(), asyncio.current_task())


async def test_the_context_is_that_of_the_call_not_of_the_await() -> None:
    WHO.set("alice")
    coroutine = who.aio(after=3)
    WHO.set("bob")
    assert await coroutine == "alice"
    assert WHO.get() == "bob"


async def test_an_async_generator_begun_as_alice_stays_hers() -> None:
    WHO.set("alice")
    items = repeat.aio(3)
    found = [await anext(items)]
    WHO.set("bob")
    found.append(await anext(items))
    assert WHO.get() == "bob"
    found.append(await asyncio.create_task(items.__anext__()))
    assert found == ["alice"] * 3


def test_a_blocking_iteration_begun_as_alice_stays_hers() -> None:
    def scenario() -> list[str]:
        WHO.set("alice")
        items = repeat(3)
        found = [next(items)]
        WHO.set("bob")
        found += list(items)
        return found

    assert contextvars.copy_context().run(scenario) == ["alice"] * 3


async def test_a_change_inside_does_not_leak_to_the_caller() -> None:
    @syncify
    async def change() -> None:
        WHO.set("mallory")

    await change.aio()
    change()
    assert WHO.get() == "nobody"


async def test_cancelling_the_caller_cancels_the_work() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    @syncify
    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(work.aio())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_timeout_of_the_caller_reaches_the_work() -> None:
    @syncify
    async def work() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await work.aio()


def test_a_blocking_iteration_left_early_closes_its_source() -> None:
    closed = threading.Event()

    @syncify
    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    items = endless()
    assert next(items) == 1
    items.close()  # type: ignore[attr-defined]
    assert closed.is_set()


async def test_an_async_iteration_left_early_closes_its_source() -> None:
    closed = asyncio.Event()

    @syncify
    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    async with endless.aio() as items:
        async for _ in items:
            break
    assert closed.is_set()


@pytest.mark.parametrize("error", [ValueError("x"), StopAsyncIteration(), KeyError("k")])
def test_errors_come_out_as_they_are(error: Exception) -> None:
    @syncify
    async def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        fail()


def test_an_error_leaves_nothing_to_the_collector() -> None:
    @syncify
    async def fail(_: Thing) -> None:
        raise ValueError

    let_go = threading.Event()
    thing = Thing()
    watched = weakref.ref(thing, lambda _: let_go.set())
    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            fail(thing)
        del thing
        assert let_go.wait(60)
    finally:
        gc.enable()
    assert watched() is None


def test_a_blocking_call_from_code_that_a_blocking_call_runs() -> None:
    @syncify
    async def outer() -> str:
        return who()

    WHO.set("alice")
    try:
        assert outer() == "alice"
    finally:
        WHO.set("nobody")


def test_any_name_may_be_a_keyword() -> None:
    @syncify
    async def echo(task: object, /, **inputs: int) -> dict[str, int]:
        return inputs

    names = {"self": 1, "task": 2, "args": 3, "kwargs": 4, "function": 5, "context": 6}
    assert echo("task", **names) == names
    assert asyncio.run(echo.aio("task", **names)) == names


def test_it_looks_like_the_function() -> None:
    assert list(inspect.signature(who).parameters) == ["after"]
    assert list(inspect.signature(Thing("x").hello).parameters) == ["greeting", "mark"]
    assert who.__doc__ == "Says who called."
    assert who.__name__ == "who"


def test_a_plain_function_is_refused() -> None:
    with pytest.raises(TypeError):
        syncify(lambda: None)  # type: ignore[arg-type, return-value]


def test_many_threads_share_the_one_loop() -> None:
    found: list[str] = []

    def ask(name: str) -> None:
        WHO.set(name)
        found.append(who(after=3))

    threads = [threading.Thread(target=ask, args=(f"user-{index}",)) for index in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(f"user-{index}" for index in range(32))
