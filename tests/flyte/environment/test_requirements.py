"""What a declaration may ask for, and what is refused when it is declared."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flyte
from flyte import Image, Resources, RetryStrategy, Timeout
from flyte._requirements import as_image, as_retry, as_timeout, check_variables, cpu_cores, memory_bytes
from flyte.errors import DeclarationError, DeploymentError


def test_an_image_is_built_up_without_changing() -> None:
    plain = Image.from_debian_base()
    full = (
        plain.with_pip_packages("fastapi", "uvicorn>=0.30")
        .with_pip_packages("httpx[http2]==0.28.*")
        .with_apt_packages("git", "libpq5=15.1-1")
        .with_env_vars({"A": "1", "B": "2"})
        .with_env_vars({"B": "3"})
    )
    assert plain == Image.from_debian_base()
    assert json.loads(full.to_json()) == {
        "base": "debian",
        "python": "",
        "pip_packages": ["fastapi", "uvicorn>=0.30", "httpx[http2]==0.28.*"],
        "apt_packages": ["git", "libpq5=15.1-1"],
        "requirements": [],
        "env_vars": {"A": "1", "B": "3"},
    }
    assert json.loads(Image.from_base("ghcr.io/acme/base:1.4").to_json())["base"] == "ghcr.io/acme/base:1.4"
    assert Image.from_debian_base("3.12") == Image.from_debian_base((3, 12))
    assert as_image("auto") == plain
    assert as_image("python:3.12") == Image.from_base("python:3.12")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Image.from_debian_base("3"),
        lambda: Image.from_debian_base("3.9"),
        lambda: Image.from_debian_base("2.7"),
        lambda: Image.from_base(""),
        lambda: Image.from_base("with space"),
        lambda: Image.from_debian_base().with_pip_packages(""),
        lambda: Image.from_debian_base().with_pip_packages("--index-url=http://evil"),
        lambda: Image.from_debian_base().with_pip_packages("a\nb"),
        lambda: Image.from_debian_base().with_pip_packages(["a"]),  # type: ignore[arg-type]
        lambda: Image.from_debian_base().with_apt_packages("-o=x"),
        lambda: Image.from_debian_base().with_apt_packages("a; rm -rf /"),
        lambda: Image.from_debian_base().with_env_vars({"A": 1}),  # type: ignore[dict-item]
        lambda: as_image(7),  # type: ignore[arg-type]
    ],
)
def test_images_that_cannot_be(make: Any) -> None:
    with pytest.raises(DeclarationError):
        make()


def test_no_password_in_an_image() -> None:
    with pytest.raises(DeclarationError) as raised:
        Image.from_debian_base().with_pip_packages("x @ https://alice:hunter2@example.org/x.whl")
    assert "hunter2" not in str(raised.value)


def test_requirements_are_read_at_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = Image.from_debian_base().with_requirements("needs.txt")
    with pytest.raises(DeploymentError, match=r"needs\.txt does not exist"):
        image.to_json()
    (tmp_path / "needs.txt").write_text("a==1  # one\n\n# two\nb @ https://example.org/b.whl#egg=b\n")
    assert image.requirements() == ("a==1", "b @ https://example.org/b.whl#egg=b")
    (tmp_path / "needs.txt").write_text("-r others.txt\n")
    with pytest.raises(DeploymentError, match="option of pip"):
        image.to_json()


@pytest.mark.parametrize(
    ("amount", "size"),
    [
        ("512Mi", 512 * 2**20),
        ("2Gi", 2**31),
        ("1.5Gi", 3 * 2**29),
        ("1G", 10**9),
        (2**30, 2**30),
        ("1048576", 2**20),
    ],
)
def test_memory(amount: Any, size: int) -> None:
    assert memory_bytes(amount) == size


@pytest.mark.parametrize(
    "amount", ["512", "512MB", "512mi", "-1Gi", "", "Gi", "1e9", "1Gi ", None, True, "9" * 40]
)
def test_no_memory(amount: Any) -> None:
    if amount == "1Gi ":
        assert memory_bytes(amount) == 2**30
        return
    with pytest.raises(DeclarationError):
        memory_bytes(amount)


@pytest.mark.parametrize(
    ("amount", "cores"), [(1, 1.0), (0.5, 0.5), ("500m", 0.5), ("2", 2.0), ("0.25", 0.25)]
)
def test_cpu(amount: Any, cores: float) -> None:
    assert cpu_cores(amount) == cores


@pytest.mark.parametrize("amount", [0, -1, "m", "1k", "1/0", "one", "", True, None, 10**9, float("nan")])
def test_no_cpu(amount: Any) -> None:
    with pytest.raises(DeclarationError):
        cpu_cores(amount)


@given(st.text(max_size=12))
def test_amounts_are_understood_or_refused(text: str) -> None:
    for measure in (cpu_cores, memory_bytes):
        try:
            assert measure(text) > 0
        except DeclarationError:
            continue


def test_resources() -> None:
    one = Resources(cpu=1, memory="512Mi")
    assert one.requests() == one.limits() == {"CPU": "1", "MEMORY": "512Mi"}
    two = Resources(cpu=(0.5, 2), memory=("256Mi", "1Gi"), gpu=1, disk="10Gi")
    assert two.requests() == {"CPU": "0.5", "MEMORY": "256Mi", "GPU": "1", "EPHEMERAL_STORAGE": "10Gi"}
    assert two.limits() == {"CPU": "2", "MEMORY": "1Gi", "GPU": "1", "EPHEMERAL_STORAGE": "10Gi"}
    for wrong in (
        {"cpu": (2, 1)},
        {"memory": ("1Gi", "1Mi")},
        {"cpu": (1, 2, 3)},
        {"gpu": "A100"},
        {"gpu": -1},
        {"disk": ("1Gi", "2Gi")},
    ):
        with pytest.raises(DeclarationError):
            Resources(**wrong)  # type: ignore[arg-type]


def test_retries_and_timeouts() -> None:
    assert as_retry(3) == RetryStrategy(3)
    assert as_timeout(None) == Timeout()
    assert as_timeout(1.5) == Timeout(max_runtime=timedelta(seconds=1.5))
    assert as_timeout(timedelta(hours=1)).max_runtime == timedelta(hours=1)
    assert Timeout(max_runtime=60).max_runtime == timedelta(minutes=1)  # type: ignore[arg-type]
    for wrong in (-1, 101, 1.5, "3", True):
        with pytest.raises(DeclarationError):
            as_retry(wrong)  # type: ignore[arg-type]
    for late in (0, -1, timedelta(days=400), "60", float("inf"), True):
        with pytest.raises(DeclarationError):
            as_timeout(late)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "variables",
    [
        {"1A": "x"},
        {"A B": "x"},
        {"": "x"},
        {"A": None},
        {"A": "\0"},
        {"_U_EP_OVERRIDE": "http://evil"},
        {"FLYTE_AGENT_SOCKET": "/tmp/x"},
        {"FLYTE_INTERNAL_EXECUTION_PROJECT": "p"},
        {"A": "x" * 40_000},
        ["A"],
    ],
)
def test_variables_that_cannot_be(variables: Any) -> None:
    with pytest.raises(DeclarationError):
        check_variables(variables, what="the test")


def test_variables() -> None:
    assert check_variables(None, what="the test") == {}
    assert check_variables({"FLYTE_ENDPOINT": "h"}, what="the test") == {"FLYTE_ENDPOINT": "h"}


def test_environments_that_cannot_be() -> None:
    for name in ("", "a b", "1a", "a.b", "a/b", "x" * 64, None, "ümlaut"):
        with pytest.raises(DeclarationError):
            flyte.TaskEnvironment(name)  # type: ignore[arg-type]
    for change in (
        {"image": 1},
        {"resources": {"cpu": 1}},
        {"env_vars": {"A": 1}},
        {"description": 5},
        {"depends_on": "base"},
        {"depends_on": [1]},
    ):
        with pytest.raises(DeclarationError):
            flyte.TaskEnvironment("env", **change)
