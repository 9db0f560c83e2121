"""Tests that share one slow server run in one process: the runner still sees their groups."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.xdist_group("groups")


def test_the_runner_sees_the_group_of_a_test(request: pytest.FixtureRequest) -> None:
    """Without that each process has a server of its own, and what two of them share is in their way."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process runs all")
    assert request.node.nodeid.endswith("@groups"), "give --dist loadgroup, as make does"
