"""Declaring apps: what is accepted, what is refused and why (P1, P2, T9)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI

import flyte.errors
from flyte._environment import find
from flyte._requirements import Image, Resources
from flyte.app import AppEnvironment, Link, Scaling
from flyte.app.extras import FastAPIAppEnvironment


def test_p01_p02_the_seeds_declaration() -> None:
    app = FastAPI()
    environment = FastAPIAppEnvironment(
        name="webhook-runner",
        app=app,
        description="A webhook service that runs Flyte tasks with passthrough auth",
        image=Image.from_debian_base().with_pip_packages("fastapi", "uvicorn"),
        resources=Resources(cpu=1, memory="512Mi"),
        requires_auth=True,
        env_vars={"FLYTE_ENDPOINT": "your-endpoint.hosted.unionai.cloud"},
    )
    assert environment.asgi() is app
    assert environment.env_vars == {"FLYTE_ENDPOINT": "your-endpoint.hosted.unionai.cloud"}
    assert environment.links == (Link("/docs", "API documentation"),)
    assert find("webhook-runner", kind="app", module=__name__).environment is environment


def test_defaults_are_safe() -> None:
    environment = FastAPIAppEnvironment("plain-app", app=FastAPI())
    assert environment.requires_auth is True
    assert environment.passthrough == "exchange"
    assert environment.public_paths == ()
    assert (environment.scaling.fewest, environment.scaling.most) == (0, 1)


def test_an_app_with_a_command() -> None:
    environment = AppEnvironment("custom", command=["gunicorn", "--bind", "unix:$FLYTE_APP_SOCKET", "m:app"])
    assert environment.command == ("gunicorn", "--bind", "unix:$FLYTE_APP_SOCKET", "m:app")
    assert environment.asgi() is None


def test_an_environment_does_not_change() -> None:
    environment = FastAPIAppEnvironment("frozen", app=FastAPI())
    with pytest.raises(AttributeError):
        environment.requires_auth = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "Upper"),
        ("name", "under_score"),
        ("name", "-dash"),
        ("name", "dash-"),
        ("name", "1st"),
        ("name", "a.b"),
        ("name", "a" * 64),
        ("name", None),
        ("app", None),
        ("app", "not an app"),
        ("image", 3),
        ("resources", {"cpu": 1}),
        ("requires_auth", "no"),
        ("passthrough", "both"),
        ("scaling", 2),
        ("env_vars", {"FLYTE_INTERNAL_EXECUTION_PROJECT": "other"}),
        ("env_vars", {"_U_EP_OVERRIDE": "http://evil.test"}),
        ("env_vars", {"FLYTE_AGENT_SOCKET": "/tmp/x"}),
        ("env_vars", {"FLYTE_APP_SOCKET": "/tmp/x"}),
        ("env_vars", {"A": 1}),
        ("env_vars", {"a=b": "c"}),
        ("public_paths", "/health"),
        ("public_paths", ["health"]),
        ("public_paths", ["/a//b"]),
        ("public_paths", ["/a/../b"]),
        ("public_paths", ["/a%2fb"]),
        ("public_paths", ["/a?b"]),
        ("public_paths", [f"/{number}" for number in range(65)]),
        ("links", ["/docs"]),
        ("depends_on", ["env"]),
        ("description", "x" * 2000),
    ],
)
def test_what_cannot_work_is_refused(field: str, value: Any) -> None:
    good: dict[str, Any] = {"name": "good-app", "app": FastAPI()}
    with pytest.raises(flyte.errors.DeclarationError):
        FastAPIAppEnvironment(**{**good, field: value})


def test_an_app_without_a_server_is_refused_with_a_remedy() -> None:
    with pytest.raises(flyte.errors.DeclarationError, match="FastAPIAppEnvironment"):
        AppEnvironment("nothing-to-run")
    with pytest.raises(flyte.errors.DeclarationError, match="list"):
        AppEnvironment("one-string", command="gunicorn app")


def test_scaling() -> None:
    assert Scaling(replicas=2).replicas == (2, 2)
    assert Scaling(replicas=(1, 3), scaledown_after=90).scaledown_seconds == 90
    assert Scaling(scaledown_after=timedelta(minutes=5)).scaledown_seconds == 300
    assert Scaling().scaledown_seconds is None


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": (2, 1)},
        {"replicas": (0, 0)},
        {"replicas": (-1, 1)},
        {"replicas": (1, 101)},
        {"replicas": True},
        {"replicas": (1,)},
        {"replicas": ("1", "2")},
        {"scaledown_after": 0},
        {"scaledown_after": "5m"},
        {"scaledown_after": 100_000},
    ],
)
def test_scaling_that_makes_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(flyte.errors.DeclarationError):
        Scaling(**values)


@pytest.mark.parametrize(
    "values",
    [{"path": "docs", "title": "x"}, {"path": "//evil.test", "title": "x"}, {"path": "/", "title": ""},
     {"path": "javascript:alert(1)", "title": "x", "is_relative": False}],
)  # fmt: skip
def test_links_that_lead_elsewhere(values: dict[str, Any]) -> None:
    with pytest.raises(flyte.errors.DeclarationError):
        Link(**values)
