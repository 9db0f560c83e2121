from __future__ import annotations

import asyncio
import threading

import pytest

from flyte import _context
from flyte._context import TaskContext, caller, caller_scope, capture, carry_context, task_scope

ALICE = (("authorization", "Bearer alice"),)
BOB = (("authorization", "Bearer bob"),)


def test_an_inner_block_replaces_and_the_outer_one_returns() -> None:
    with caller_scope(ALICE):
        with caller_scope(BOB):
            assert caller() == BOB
        assert caller() == ALICE
    assert caller() is None


def test_a_block_left_by_an_exception_leaves_nothing_behind() -> None:
    with pytest.raises(KeyError), caller_scope(ALICE):
        raise KeyError
    assert caller() is None


def _in_thread(function: object) -> object:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(function()))  # type: ignore[operator]
    thread.start()
    thread.join()
    return found[0]


def test_a_bare_thread_has_no_caller_unless_it_is_carried() -> None:
    with caller_scope(ALICE):
        carried = carry_context(caller)
        assert _in_thread(caller) is None
    with caller_scope(BOB):
        assert _in_thread(carried) == ALICE
        assert caller() == BOB


async def test_a_coroutine_function_is_carried_too() -> None:
    async def who() -> object:
        await asyncio.sleep(0)
        return caller()

    with caller_scope(ALICE):
        carried = carry_context(who)
    assert await carried() == ALICE
    assert caller() is None


def test_a_snapshot_brings_back_all_three_values() -> None:
    task = TaskContext(project="p", domain="d", run="r")
    with caller_scope(ALICE), task_scope(task), _context.session_scope("session"):
        snapshot = capture()
    with snapshot.applied():
        assert (caller(), _context.task(), _context.session_override()) == (ALICE, task, "session")
    assert (caller(), _context.task(), _context.session_override()) == (None, None, None)


def test_a_task_process_is_part_of_its_attempt_in_every_thread() -> None:
    task = TaskContext(project="p", domain="d", run="r")
    _context.enter_task(task)
    try:
        assert _in_thread(_context.task) is task
    finally:
        _context.enter_task(None)
