"""Secrets as they are declared, and what a deployment says of them."""

from __future__ import annotations

import pytest

import flyte
from flyte._deploy.specs import app_message, task_spec
from flyte.app import AppEnvironment
from flyte.errors import DeclarationError, NotInTaskError


def test_a_secret_is_in_the_variable_of_its_name_unless_said_otherwise() -> None:
    assert flyte.Secret("warehouse-token").as_env_var == "WAREHOUSE_TOKEN"
    assert flyte.Secret("2fa.seed").as_env_var == "_2FA_SEED"
    assert flyte.Secret("x", as_env_var="Token").as_env_var == "Token"
    mounted = flyte.Secret("pem", mount="/etc/flyte/secrets")
    assert (mounted.mount, mounted.as_env_var) == (True, None)
    assert mounted == flyte.Secret("pem", mount=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"key": ""}, "name of a secret"),
        ({"key": "../x"}, "name of a secret"),
        ({"key": 5}, "name of a secret"),
        ({"key": "x", "as_env_var": "no-dash"}, "environment variable"),
        ({"key": "x", "as_env_var": "FLYTE_AGENT_SOCKET"}, "set by the platform"),
        ({"key": "x", "mount": "/elsewhere"}, "/elsewhere"),
    ],
)
def test_what_no_secret_can_be(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        flyte.Secret(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        (5, "list of"),
        ([5], "list of"),
        (["a-b", "a_b"], "A_B"),
        ([flyte.Secret("x", mount=True), flyte.Secret("x", mount=True, as_env_var="X")], "for x"),
        ([f"s{number}" for number in range(33)], "more than 32"),
    ],
)
def test_what_no_environment_can_declare(secrets: object, words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        flyte.TaskEnvironment("wrong", secrets=secrets)  # type: ignore[arg-type]


def test_a_specification_names_them_and_their_places() -> None:
    env = flyte.TaskEnvironment(
        "named", secrets=["a-b", flyte.Secret("c", mount=True), flyte.Secret("d", as_env_var="D", mount=True)]
    )

    @env.task
    def work() -> None: ...

    declared = task_spec(work, module="m").task_template.security_context.secrets
    kinds = declared[0].MountType
    assert [(each.key, each.env_var, each.mount_requirement) for each in declared] == [
        ("a-b", "A_B", kinds.ENV_VAR),
        ("c", "", kinds.FILE),
        ("d", "D", kinds.FILE),
    ]
    bare = flyte.TaskEnvironment("bare")
    assert not task_spec(bare.task(lone), module="m").task_template.HasField("security_context")


def lone() -> None: ...


def test_an_app_names_them_too() -> None:
    class Served(AppEnvironment):
        def asgi(self) -> object:  # type: ignore[override]
            return object()

    message = app_message(Served("served", secrets="token"), module="m")
    assert [each.env_var for each in message.spec.security_context.secrets] == ["TOKEN"]
    started = AppEnvironment("started", command=["x"], secrets=["token", flyte.Secret("pem", mount=True)])
    message = app_message(started, module="m")
    assert [(each.key, each.env_var) for each in message.spec.security_context.secrets] == [
        ("token", "TOKEN"),
        ("pem", ""),
    ]


def test_there_is_no_identity_outside_of_a_task() -> None:
    with pytest.raises(NotInTaskError, match="inside of a running task"):
        flyte.identity_token("https://vault.example.com")
