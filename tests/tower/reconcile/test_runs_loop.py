"""From a queued row to its result, with real processes; time moves only where a test moves it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tower.reconcile.conftest import FakeClock, House, error_of, limit

from tower.control.reconcile import Reconcile
from tower.control.waiting import Waiting
from tower.errors import Precondition, Unavailable
from tower.states import Phase
from tower.store import audit, runs


def living(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


async def test_a_queued_run_ends_with_its_outputs(house: House) -> None:
    key = await house.launch("add", {"x": 2, "y": 40})
    row = await house.until(key)
    assert (row.phase, row.error, row.attempts) == (Phase.SUCCEEDED, "", 1)
    assert await house.output(row) == 42
    assert row.outputs_uri == f"tower://outputs/p/development/{key.run}/a0/1"
    (attempt,) = house.attempts(key)
    assert (attempt.phase, attempt.has_logs) == (Phase.SUCCEEDED, False)
    assert None not in (row.started_at, row.ended_at, attempt.started_at, attempt.ended_at)


async def test_large_outputs_are_a_file_and_small_ones_are_none(house: House) -> None:
    small = await house.until(await house.launch("add", {"x": 1, "y": 2}))
    assert not house.blobs.path(small.outputs_key).exists()
    key = await house.launch("repeat", {"text": "ab", "times": 100_000})
    row = await house.until(key)
    assert house.blobs.path(row.outputs_key).exists()
    assert await house.output(row) == "ab" * 100_000


async def test_the_end_is_in_the_audit_with_the_person_and_the_decision(house: House) -> None:
    key = await house.launch("add", {"x": 1, "y": 1}, actors='["app:p/development/hook"]', request_id="q")
    await house.until(key)
    (entry,) = house.db.read_now(audit.page)
    assert (entry.event, entry.outcome, entry.subject) == ("run.finish", "allowed", "alice")
    assert (entry.credential_kind, entry.credential_id) == ("api_key", "abc")
    assert (entry.app, entry.decision, entry.request_id) == ("p/development/hook", "p1", "q")
    assert f'"outputs":"tower://outputs/p/development/{key.run}/a0/1"' in entry.detail


async def test_what_a_task_prints_is_its_log(house: House) -> None:
    key = await house.launch("say", {"text": "hello world"})
    row = await house.until(key)
    assert row.phase is Phase.SUCCEEDED
    assert house.attempts(key)[0].has_logs
    assert await house.printed(key, "hello world") == "hello world\n"


async def test_the_environment_is_made_from_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWER_CANARY", "leak")

    def declare(spec: object) -> None:
        config = spec.task_template.container.config.add()  # type: ignore[attr-defined]
        config.key = "flyte.image"
        config.value = '{"env_vars": {"FROM_IMAGE": "1", "BOTH": "image", "_U_EP_OVERRIDE": "http://evil"}}'
        spec.task_template.container.env.add(key="BOTH", value="task")  # type: ignore[attr-defined]

    key = await house.launch(
        "env_of", spec=declare, env={"FROM_RUN": "1", "LD_PRELOAD": "evil.so", "FLYTE_AGENT_SOCKET": "/evil"}
    )
    env = await house.output(await house.until(key))
    assert isinstance(env, dict)
    agent = Path(env.pop("FLYTE_AGENT_SOCKET"))  # elsewhere than in the home when that has a long name
    assert agent.name == "agent"
    assert agent.parts[1] != "evil"
    assert env.pop("TMPDIR").startswith(str(house.home))
    assert env.pop("PATH")
    assert env.pop("VIRTUAL_ENV")
    assert json.loads(env.pop("FLYTE_ATTEMPT_FACTS"))["subject"] == "alice"
    assert env == {
        "FROM_IMAGE": "1",
        "FROM_RUN": "1",
        "BOTH": "task",
        "HOME": "/proc/self/cwd",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "_U_EP_OVERRIDE": "http://127.0.0.1:8080",
        "_U_ORG_NAME": "tower",
        "FLYTE_INTERNAL_EXECUTION_PROJECT": "p",
        "FLYTE_INTERNAL_EXECUTION_DOMAIN": "development",
        "FLYTE_ATTEMPT_NUMBER": "1",
        "FLYTE_TASK_VERSION": "v1",
        "RUN_NAME": key.run,
        "ACTION_NAME": "a0",
    }


async def test_a_process_that_stays_after_its_result_is_not_heard_any_more_and_ended(house: House) -> None:
    key = await house.launch("stays")
    row = await house.until(key)
    assert row.phase is Phase.SUCCEEDED
    assert await house.output(row) == "early"
    assert house.agent.open_sockets == 0
    pid = int((await house.printed(key, "stays")).split()[1])
    await house.reconcile.stop()
    assert not living(pid)


async def test_the_socket_names_the_attempt(house: House) -> None:
    key = await house.launch("who")
    assert await house.output(await house.until(key)) == "/".join((*key, "1"))


async def test_nothing_is_left_after_an_attempt(house: House) -> None:
    """T5, T30: no socket, no folder, no file of an attempt outlives it."""
    await house.until(await house.launch("who"))
    await house.reconcile.stop()
    await house.parts.rooms.close()
    assert house.agent.open_sockets == 0
    assert not list((house.home / "work").glob("*/*"))
    assert not list((house.home / "run").glob("*/*"))


@pytest.mark.parametrize(
    ("kind", "code", "whose"),
    [
        ("value", "ValueError", "user"),
        ("exit", "ExitStatus", "user"),
        ("segv", "Signal", "user"),
        ("link", "BadOutputs", "user"),
        ("nothing", "NoOutputs", "user"),
        ("garbage", "BadOutputs", "user"),
    ],
)
async def test_failures_say_what_happened(house: House, kind: str, code: str, whose: str) -> None:
    key = await house.launch("fail", {"kind": kind})
    row = await house.until(key)
    assert row.phase is Phase.FAILED
    error = error_of(row)
    assert (error["code"], error["kind"]) == (code, whose)
    assert str(house.home) not in error["message"]
    assert row.outputs_uri == ""
    assert error_of(house.attempts(key)[0]) == error
    (entry,) = house.db.read_now(audit.page)
    assert (entry.event, entry.outcome) == ("run.finish", "failed")


async def test_a_failure_is_tried_again_as_often_as_declared(house: House) -> None:
    key = await house.launch("fail", {"kind": "value"}, max_attempts=3)
    row = await house.until(key)
    assert (row.phase, row.attempts) == (Phase.FAILED, 3)
    assert [attempt.phase for attempt in house.attempts(key)] == [Phase.FAILED] * 3


async def test_a_later_attempt_may_succeed(house: House) -> None:
    key = await house.launch("second_time", max_attempts=5)
    row = await house.until(key)
    assert (row.phase, row.attempts, row.error) == (Phase.SUCCEEDED, 2, "")
    assert row.outputs_uri.endswith("/2")
    assert [attempt.phase for attempt in house.attempts(key)] == [Phase.FAILED, Phase.SUCCEEDED]


async def test_what_can_never_work_is_not_tried_again(house: House) -> None:
    key = await house.launch("fail", {"kind": "for good"}, max_attempts=5)
    assert (await house.until(key)).attempts == 1


async def test_failures_of_the_system_do_not_use_up_the_users_retries(house: House) -> None:
    key = await house.launch("fail", {"kind": "killed"}, max_attempts=1)
    row = await house.until(key)
    assert (row.phase, row.attempts) == (Phase.FAILED, 4)
    assert error_of(row)["kind"] == "system"


async def test_memory_is_limited(house: House) -> None:
    if not house.executor.enforcement.startswith("cgroups"):
        pytest.skip("no control groups here")

    key = await house.launch("add", {"x": 1, "y": 2}, spec=lambda spec: limit(spec, "MEMORY", "1Mi"))
    row = await house.until(key)
    assert error_of(row)["code"] == "OutOfMemory"
    assert "1 MiB" in error_of(row)["message"]


async def test_an_abort_ends_the_process(house: House) -> None:
    key = await house.launch("wait")
    pid = int((await house.printed(key, "waiting")).split()[1])

    def abort(tx: object) -> None:
        runs.abort(tx, key, reason="enough", by="bob")  # type: ignore[arg-type]
        tx.after_commit(lambda: house.events.publish(("action", *key)))  # type: ignore[attr-defined]

    await house.db.write(abort)
    await house.reconcile.stop()
    assert not living(pid)
    row = house.row(key)
    assert (row.phase, row.abort_reason, row.aborted_by) == (Phase.ABORTED, "enough", "bob")
    (attempt,) = house.attempts(key)
    assert (attempt.phase, attempt.has_logs) == (Phase.ABORTED, True)
    assert house.agent.open_sockets == 0


async def test_an_attempt_with_nobody_left_is_stopped_and_not_tried_again(house: House) -> None:
    key = await house.launch("wait", max_attempts=3)
    other = await house.launch("wait")
    pid = int((await house.printed(key, "waiting")).split()[1])
    await house.printed(other, "waiting")
    house.events.publish(("people",))  # something else changed
    house.gone = "The grant of the run was revoked by alice."
    house.events.publish(("action", *other))  # a change of its own is no reason to ask
    house.events.publish(("people",))
    for each in (key, other):
        row = await house.until(each)
        assert row.phase is Phase.FAILED
        assert (error_of(row)["code"], error_of(row)["message"]) == ("NotPermitted", house.gone)
    await house.reconcile.stop()
    assert not living(pid)
    assert len(house.attempts(key)) == 1
    assert house.agent.open_sockets == 0


async def test_an_abort_before_the_start_starts_nothing(idle: House) -> None:
    key = await idle.launch("say", {"text": "never"})
    await idle.db.write(lambda tx: runs.abort(tx, key, reason="", by="bob"))
    await idle.reconcile.start()
    other = await idle.launch("add", {"x": 1, "y": 2})
    await idle.until(other)
    assert idle.attempts(key) == []


async def test_running_too_long_is_ended(house: House, clock: FakeClock) -> None:
    key = await house.launch("wait", run_timeout=50.0, max_attempts=3)
    pid = int((await house.printed(key, "waiting")).split()[1])
    clock.advance(49)
    assert house.row(key).phase is not Phase.TIMED_OUT
    clock.advance(2)
    row = await house.until(key)
    assert row.phase is Phase.TIMED_OUT
    assert error_of(row)["code"] == "MAX_RUNTIME_EXCEEDED"
    await house.reconcile.stop()
    assert not living(pid)
    assert house.attempts(key)[0].phase is Phase.TIMED_OUT
    assert house.db.read_now(audit.page)[0].outcome == "failed"


async def test_waiting_too_long_is_ended(house: House, clock: FakeClock) -> None:
    for _ in range(2):  # the house has room for two
        key = await house.launch("wait")
        await house.printed(key, "waiting")
    late = await house.launch("add", {"x": 1, "y": 1}, queue_timeout=10.0)
    patient = await house.launch("add", {"x": 1, "y": 1}, queue_timeout=1000.0)
    await asyncio.sleep(0)
    clock.advance(11)
    row = await house.until(late)
    assert row.phase is Phase.TIMED_OUT
    assert error_of(row)["code"] == "QUEUED_TIMEOUT_EXCEEDED"
    assert house.attempts(late) == []
    assert house.row(patient).phase is Phase.QUEUED


async def test_no_more_attempts_at_once_than_allowed_and_in_order(idle: House) -> None:
    idle.settle(parallel_attempts=1)
    keys = []
    for number in range(4):
        idle.clock.time += 1
        keys.append(await idle.launch("add", {"x": number, "y": 0}))
    await idle.reconcile.start()
    most = 0
    while any(not idle.row(key).phase.terminal for key in keys):
        most = max(most, sum(idle.row(key).phase in {Phase.INITIALIZING, Phase.RUNNING} for key in keys))
        await idle.until(next(key for key in keys if not idle.row(key).phase.terminal))
        idle.clock.time += 1
    assert most <= 1
    ended = [idle.row(key).ended_at or 0.0 for key in keys]
    assert ended == sorted(ended)


async def test_many_runs_all_end(house: House) -> None:
    keys = [await house.launch("add", {"x": number, "y": 1}) for number in range(12)]
    for number, key in enumerate(keys):
        assert await house.output(await house.until(key)) == number + 1


async def test_someone_who_lost_the_right_does_not_start(house: House) -> None:
    """T7: rights are asked for again when the attempt starts."""
    house.refusal = "alice may not run e.say any more."
    key = await house.launch("say", {"text": "never"}, max_attempts=3)
    row = await house.until(key)
    assert (row.phase, row.attempts) == (Phase.FAILED, 1)
    assert error_of(row)["message"] == "alice may not run e.say any more."
    assert not house.attempts(key)[0].has_logs


async def test_an_image_that_cannot_be_built_fails_the_run_with_its_reason(house: House) -> None:
    house.images.fault = Precondition("The image's package 'nope' could not be installed.", hint="Look.")
    key = await house.launch("add", {"x": 1, "y": 1}, max_attempts=3)
    row = await house.until(key)
    assert row.attempts == 1
    assert error_of(row)["message"] == "The image's package 'nope' could not be installed. Look."


async def test_an_index_that_does_not_answer_is_asked_again(house: House) -> None:
    house.images.fault = Unavailable("The package index did not answer.")
    row = await house.until(await house.launch("add", {"x": 1, "y": 1}))
    assert row.attempts == 4
    assert error_of(row)["kind"] == "system"


async def test_tasks_of_the_official_sdk_are_told_what_to_do(house: House) -> None:
    def declare(spec: object) -> None:
        del spec.task_template.container.args[:]  # type: ignore[attr-defined]
        spec.task_template.container.args.extend(["a0", "--inputs", "{{.input}}"])  # type: ignore[attr-defined]
        spec.task_template.container.image = "ghcr.io/flyteorg/flyte:py3.11-v2.12.1"  # type: ignore[attr-defined]
        spec.task_template.metadata.runtime.version = "2.12.1"  # type: ignore[attr-defined]

    row = await house.until(await house.launch("add", {"x": 1, "y": 1}, spec=declare))
    assert row.phase is Phase.FAILED
    assert "--tls" in error_of(row)["message"]


async def test_a_bundle_other_than_the_deployed_one_is_refused(house: House) -> None:
    """T2: the digest of the deployment decides, not what lies in the store now."""
    row = await house.until(await house.launch("add", {"x": 1, "y": 1}, code_digest="0" * 64))
    assert "not the one that was deployed" in error_of(row)["message"]


async def test_a_restart_takes_up_what_was_running(idle: House) -> None:
    key = await idle.launch("second_time", max_attempts=1)
    from tower.store import attempts

    def crash(tx: object) -> None:
        assert attempts.lease(tx, idle.row(key)) is not None  # type: ignore[arg-type]
        attempts.started(tx, key, 1, 0.0)  # type: ignore[arg-type]

    await idle.db.write(crash)
    assert idle.row(key).phase is Phase.RUNNING
    await idle.reconcile.start()
    row = await idle.until(key)
    assert (row.phase, row.attempts) == (Phase.SUCCEEDED, 2)
    assert error_of(idle.attempts(key)[0])["code"] == "TowerRestarted"


async def test_stopping_puts_back_what_does_not_end_in_time(house: House) -> None:
    key = await house.launch("wait")
    pid = int((await house.printed(key, "waiting")).split()[1])
    await house.reconcile.stop()
    assert not living(pid)
    row = house.row(key)
    assert row.phase is Phase.QUEUED
    assert error_of(house.attempts(key)[0])["code"] == "TowerStopped"
    again = Reconcile(house.parts)
    await again.start()
    await house.printed(key, "waiting", attempt=2)
    await again.stop()


async def test_stopping_waits_for_what_ends_in_time(tmp_path: Path, clock: FakeClock) -> None:
    house = House(tmp_path, clock)
    house.settle(drain_seconds=30.0)
    await house.reconcile.start()
    key = await house.launch("add", {"x": 1, "y": 1})
    await house.until(key, Phase.INITIALIZING, Phase.RUNNING, Phase.SUCCEEDED)
    await house.reconcile.stop()
    assert house.row(key).phase is Phase.SUCCEEDED
    await house.close()


async def test_output_is_bounded(idle: House) -> None:
    idle.settle(max_log=2000)
    await idle.reconcile.start()
    key = await idle.launch("say", {"text": "x" * 100_000})
    assert (await idle.until(key)).phase is Phase.SUCCEEDED
    log = idle.home / "logs" / f"{'/'.join((*key, '1'))}.log"
    assert log.stat().st_size < 4000


async def test_the_person_in_the_row_cannot_be_changed_by_the_process(house: House) -> None:
    """T10: what an attempt writes about itself changes nothing but its outputs."""
    key = await house.launch("env_of", env={"RUN_NAME": "other", "EXECUTED_BY": "bob"})
    row = await house.until(key)
    assert row.executed_by == "alice"
    env = await house.output(row)
    assert isinstance(env, dict)
    assert env["RUN_NAME"] == key.run


async def test_the_long_runs_of_one_person_keep_nobody_else_out(idle: House) -> None:
    """T45: all places are taken, and runs of the same person wait for them; others' start all the same."""
    idle.settle(parallel_attempts=2)
    await idle.reconcile.start()
    long = [await idle.launch("wait") for _ in range(2)]
    for key in long:
        await idle.printed(key, "waiting")
    queued = [await idle.launch("add", {"x": 1, "y": 1}) for _ in range(3)]
    for person in ("bob", "carol", "bob"):
        key = await idle.launch("add", {"x": 1, "y": 2}, executed_by=person)
        async with asyncio.timeout(60):
            while not idle.attempts(key):
                if any(at <= idle.clock.time + 2 for at, _ in idle.clock.timers):
                    idle.clock.advance(2)  # it is looked for now and then
                await asyncio.sleep(0)
        row = await idle.until(key)
        assert (row.phase, row.executed_by) == (Phase.SUCCEEDED, person)
    assert [idle.row(key).phase for key in queued] == [Phase.QUEUED] * 3


async def test_an_attempt_that_only_waits_for_others_needs_no_place(idle: House) -> None:
    waiting = Waiting(events=idle.events)
    idle.settle(parallel_attempts=1)
    idle.parts = replace(idle.parts, waiting=waiting)
    idle.reconcile = Reconcile(idle.parts)
    await idle.reconcile.start()
    parent = await idle.launch("wait")
    await idle.printed(parent, "waiting")
    child = await idle.launch("add", {"x": 1, "y": 2}, run=parent.run, action="c1", parent="a0", turn=-1)
    assert idle.reconcile.running == 1
    assert idle.row(child).phase is Phase.QUEUED
    with waiting.waiting(parent):
        row = await idle.until(child)
    assert row.phase is Phase.SUCCEEDED


async def test_what_runs_ask_for_starts_before_new_runs(idle: House) -> None:
    idle.settle(parallel_attempts=1)
    first = await idle.launch("add", {"x": 1, "y": 2})
    idle.clock.time += 1
    nested = await idle.launch("add", {"x": 1, "y": 2}, run=first.run, action="c1", parent="a0", turn=-1)
    deepest = await idle.launch("add", {"x": 1, "y": 2}, run=first.run, action="d1", parent="c1", turn=-2)
    from tower.store import attempts

    assert idle.db.read_now(lambda reader: attempts.queued(reader, 9)) == [deepest, nested, first]


async def test_what_an_action_asked_for_ends_with_it(house: House) -> None:
    parent = await house.launch("add", {"x": 1, "y": 2}, queued_at=9e9)
    child = await house.launch("wait", run=parent.run, action="c1", parent="a0", turn=-1)
    below = await house.launch("wait", run=parent.run, action="d1", parent="c1", turn=-2)
    assert (await house.until(parent)).phase is Phase.SUCCEEDED
    for key in (child, below):
        row = await house.until(key)
        assert (row.phase, row.aborted_by) == (Phase.ABORTED, "")
        assert "has ended" in row.abort_reason
    [ended] = house.db.read_now(lambda reader: audit.page(reader, outcome="cancelled"))
    assert (ended.event, ended.run) == ("run.finish", "/".join(parent[:3]))
    assert '"action":"c1"' in ended.detail
    assert '"with":["d1"],"with_count":1' in ended.detail
