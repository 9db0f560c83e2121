"""What a declaration amounts to, and that nobody but Tower sets what is Tower's."""

from __future__ import annotations

import json
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest
from flyteidl2.app import app_definition_pb2
from flyteidl2.core import tasks_pb2
from flyteidl2.task import run_pb2, task_definition_pb2
from hypothesis import given
from hypothesis import strategies as st

from tower.control.reconcile import Ground, plan
from tower.errors import Invalid, Unsupported
from tower.executors.port import Limits
from tower.images.port import ImageSpec
from tower.settings import Settings

RESERVED = Settings(home=Path("/nowhere")).reserved_env
GROUND = Ground(endpoint="http://127.0.0.1:8080", org="tower", reserved=RESERVED, output=1000)


def spec(*arguments: str, image: str = "") -> task_definition_pb2.TaskSpec:
    made = task_definition_pb2.TaskSpec()
    container = made.task_template.container
    container.args.extend(arguments or ("flyte-runtime", "task", "--module", "m", "--task", "e.f"))
    if image:
        container.config.add(key="flyte.image", value=image)
    return made


def declared(made: task_definition_pb2.TaskSpec, run: run_pb2.RunSpec | None = None) -> plan.Declared:
    return plan.task(made, run or run_pb2.RunSpec(), GROUND)


def test_the_least_that_a_task_declares() -> None:
    found = declared(spec())
    assert (found.module, found.name, found.command) == ("m", "e.f", ())
    assert found.image == ImageSpec()
    assert found.limits == Limits(output=1000)


def test_options_in_any_order() -> None:
    found = declared(spec("flyte-runtime", "task", "--task", "e.f", "--module", "a.b"))
    assert (found.module, found.name) == ("a.b", "e.f")


@pytest.mark.parametrize(
    "arguments",
    [
        ("flyte-runtime",),
        ("flyte-runtime", "app", "--module", "m", "--task", "f"),
        ("flyte-runtime", "task", "--module", "m"),
        ("flyte-runtime", "task", "--module", "m", "--task", "f", "--bundle", "/etc"),
        ("flyte-runtime", "task", "--module", "", "--task", "f"),
        ("sh", "-c", "id"),
        ("a0", "--inputs", "x"),
    ],
)
def test_other_programs_are_refused_with_what_to_do(arguments: tuple[str, ...]) -> None:
    with pytest.raises(Unsupported) as raised:
        declared(spec(*arguments))
    assert raised.value.hint


def test_the_image_travels_as_json() -> None:
    image = {"base": "debian", "python": "3.12", "pip_packages": ["a", "b"], "env_vars": {"A": "1"}}
    found = declared(spec(image=json.dumps(image)))
    assert found.image == ImageSpec(python="3.12", pip_packages=("a", "b"), env_vars={"A": "1"})


@pytest.mark.parametrize(
    "image", ["{", "[]", "3", '{"pip_packages": "a"}', '{"env_vars": []}', '{"apt_packages": {"a": 1}}']
)
def test_a_damaged_image_is_refused(image: str) -> None:
    with pytest.raises(Invalid, match="image"):
        declared(spec(image=image))


def test_limits_are_what_is_named_as_limit() -> None:
    made = spec()
    names = tasks_pb2.Resources.ResourceName
    resources = made.task_template.container.resources
    resources.requests.add(name=names.Value("CPU"), value="1")
    assert declared(made).limits == Limits(output=1000)
    resources.limits.add(name=names.Value("CPU"), value="500m")
    resources.limits.add(name=names.Value("MEMORY"), value="1Gi")
    assert declared(made).limits == Limits(memory=2**30, cpu=0.5, output=1000)
    resources.limits.add(name=names.Value("GPU"), value="1")
    with pytest.raises(Unsupported, match="GPU"):
        declared(made)


@given(st.integers(0, 10**9), st.sampled_from(["", "k", "Ki", "M", "Mi", "G", "Gi", "T", "Ti"]))
def test_quantities(number: int, unit: str) -> None:
    base = 1024 if unit.endswith("i") else 1000
    power = " kMGT".index(unit[0].replace("K", "k")) if unit else 0
    assert plan.quantity(f"{number}{unit}") == number * base**power
    assert plan.quantity("250m") == Fraction(1, 4)


@given(st.text(max_size=40))
def test_no_text_breaks_the_reading_of_quantities(text: str) -> None:
    with suppress(Invalid):
        assert plan.quantity(text) >= 0


NAMES = st.one_of(
    st.sampled_from(sorted(RESERVED)), st.text(max_size=10), st.sampled_from(["A", "B", "PATH"])
)


@given(*[st.dictionaries(NAMES, st.text(max_size=5), max_size=6) for _ in range(3)])
def test_nobody_sets_what_is_towers(
    image: dict[str, str], container: dict[str, str], run: dict[str, str]
) -> None:
    """T9: whatever image, task and run say, the reserved names are Tower's."""
    made, run_spec = spec(), run_pb2.RunSpec()
    for name, value in container.items():
        made.task_template.container.env.add(key=name, value=value)
    for name, value in run.items():
        run_spec.envs.values.add(key=name, value=value)
    own = {"FLYTE_AGENT_SOCKET": "/s", "RUN_NAME": "r"}
    env = plan.process_env(
        declared(made, run_spec), GROUND, image_env=image, python=Path("/v/bin/python"), own=own
    )
    expected = own | {"_U_EP_OVERRIDE": GROUND.endpoint, "_U_ORG_NAME": "tower"}
    assert {name: value for name, value in env.items() if name in RESERVED} == expected
    for name, value in env.items():
        assert name
        assert "=" not in name
        assert "\0" not in name + value
    for name in {"A", "B"} & env.keys():
        layers = [image, {**container, **run}]  # one that holds a NUL is left out of its layer
        assert env[name] == [each[name] for each in layers if "\0" not in each.get(name, "\0")][-1]


def app(*arguments: str, command: tuple[str, ...] = ()) -> app_definition_pb2.App:
    made = app_definition_pb2.App()
    made.metadata.id.name = "hook"
    made.spec.container.args.extend(arguments)
    made.spec.container.command.extend(command)
    return made


def test_an_app_with_the_built_in_server() -> None:
    found = plan.app(app("flyte-runtime", "app", "--module", "m", "--app", "hook"), GROUND)
    assert (found.module, found.name, found.command) == ("m", "hook", ())


def test_an_app_with_a_command_of_its_own() -> None:
    found = plan.app(app("--port", "1", command=("python", "x.py")), GROUND)
    assert (found.name, found.command) == ("hook", ("python", "x.py", "--port", "1"))


def test_an_app_of_the_official_sdk_is_told_what_to_do() -> None:
    with pytest.raises(Unsupported, match="flyte"):
        plan.app(app(command=("fserve", "--version", "1")), GROUND)
    with pytest.raises(Unsupported):
        plan.app(app("fserve"), GROUND)
