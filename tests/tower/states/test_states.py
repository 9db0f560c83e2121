"""The state machines: what may follow what, and that their numbers are those of the wire."""

from __future__ import annotations

import pytest
from flyteidl2.app import app_definition_pb2
from flyteidl2.common import phase_pb2
from hypothesis import given
from hypothesis import strategies as st

from tower.states import MOVES, AppStatus, Desired, Phase, may_move

phases = st.sampled_from(Phase)


def test_the_numbers_are_those_of_the_wire() -> None:
    for phase in Phase:
        assert phase_pb2.ActionPhase.Value(f"ACTION_PHASE_{phase.name}") == phase
    status = app_definition_pb2.Status.DeploymentStatus
    for each in AppStatus:
        assert status.Value(f"DEPLOYMENT_STATUS_{each.name}") == each
    desired = app_definition_pb2.Spec.DesiredState
    for each in Desired:
        assert desired.Value(f"DESIRED_STATE_{each.name}") == each


def test_every_phase_has_its_moves() -> None:
    assert set(MOVES) == set(Phase)


@given(phases, phases)
def test_nothing_follows_an_end(source: Phase, target: Phase) -> None:
    if source.terminal:
        assert not may_move(source, target)


@given(phases)
def test_whatever_is_open_can_be_aborted_and_can_time_out(source: Phase) -> None:
    assert may_move(source, Phase.ABORTED) is not source.terminal
    assert may_move(source, Phase.TIMED_OUT) is not source.terminal


@given(phases)
def test_no_phase_follows_itself(source: Phase) -> None:
    assert not may_move(source, source)


def test_only_what_runs_can_succeed() -> None:
    assert [source for source in Phase if may_move(source, Phase.SUCCEEDED)] == [Phase.RUNNING]


def test_every_phase_can_be_reached_from_the_first() -> None:
    reached = {Phase.QUEUED}
    while True:
        more = reached.union(*(MOVES[phase] for phase in reached))
        if more == reached:
            break
        reached = more
    assert reached == set(Phase)


@pytest.mark.parametrize("phase", [phase for phase in Phase if not phase.terminal])
def test_the_open_phases_are_below_the_ends(phase: Phase) -> None:
    """The index of open actions holds what is below SUCCEEDED."""
    assert phase < Phase.SUCCEEDED
