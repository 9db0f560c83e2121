"""Privileges as an environment declares them, and what a deployment says of them."""

from __future__ import annotations

import json

import pytest

import flyte
from flyte._deploy.specs import task_spec
from flyte.errors import DeclarationError


def test_a_specification_names_each_privilege_once_and_says_nothing_without() -> None:
    env = flyte.TaskEnvironment("keeping", privileges=["secret:delete", "secret:create", "secret:create"])
    plain = flyte.TaskEnvironment("plain")
    one = flyte.TaskEnvironment("single", privileges="secret:create")
    assert (env.privileges, plain.privileges) == (("secret:create", "secret:delete"), ())
    assert one.privileges == ("secret:create",)

    @env.task
    def work() -> None: ...

    @plain.task
    def rest() -> None: ...

    named = {pair.key: pair.value for pair in task_spec(work, module="m").task_template.container.config}
    assert json.loads(named["flyte.privileges"]) == ["secret:create", "secret:delete"]
    without = task_spec(rest, module="m").task_template.container.config
    assert "flyte.privileges" not in {pair.key for pair in without}


@pytest.mark.parametrize("wrong", [5, [5], ["secrets"], ["Secret:Create"], [""], b"secret:create", ["a:b c"]])
def test_what_is_no_action_cannot_be_declared(wrong: object) -> None:
    with pytest.raises(DeclarationError, match="privileges"):
        flyte.TaskEnvironment("wrong", privileges=wrong)  # type: ignore[arg-type]
