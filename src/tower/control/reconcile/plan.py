"""From what was declared to what a process gets: module and function, image, limits, environment. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from flyteidl2.app import app_definition_pb2
from flyteidl2.core import tasks_pb2
from flyteidl2.task import run_pb2, task_definition_pb2

from tower.control import builtins, officialimages, officialspecs, variables
from tower.errors import Invalid, Unsupported
from tower.executors.port import Limits
from tower.images.port import ImageSpec

_PROGRAM = "flyte-runtime"
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")
_UNITS = {
    "": Fraction(1),
    "m": Fraction(1, 1000),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
}
_Names = tasks_pb2.Resources.ResourceName


@dataclass(frozen=True, slots=True)
class Ground:
    """What every hosted process is told about the installation."""

    endpoint: str
    org: str
    reserved: frozenset[str]
    output: int
    trust: Path | None = None
    """A file of what hosted clients trust, where Tower's own certificate is of its local authority."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What a task or app declares, read and checked. `name` is the task's or the app's.

    A task with a `command` is one of the official SDK, started by `official`.
    """

    image: ImageSpec
    module: str
    name: str
    command: tuple[str, ...]
    limits: Limits
    env: Mapping[str, str]
    bundle: str
    image_name: str = ""
    secrets: bool = False
    builds_image: bool = False
    chosen: bool = False
    """Whether who started the run chose some of its variables."""


def task(spec: task_definition_pb2.TaskSpec, run_spec: run_pb2.RunSpec, ground: Ground) -> Declared:
    """What a task declares. Raises Unsupported or Invalid, with words for whoever reads the run's page."""
    template = spec.task_template
    container = template.container
    arguments = list(container.args)
    chosen = {
        name: value for name, value in _env(run_spec.envs.values).items() if variables.free(name, value)
    }
    env = _env(container.env) | chosen
    if builtins.builds_image(spec):
        return Declared(ImageSpec(), "", "", (), Limits(), {}, "", builds_image=True)
    hosted = officialspecs.hosts(spec)
    options = {"module": "", "task": ""} if hosted else _options(arguments, kind="task")
    return Declared(
        image=_official_image(template) if hosted else _image(container.config),
        module=options["module"],
        name=options["task"],
        command=tuple(arguments) if hosted else (),
        limits=_limits(container.resources, ground),
        env=_free(env, ground),
        bundle=template.metadata.code_bundle_uri,
        image_name=container.image,
        secrets=bool(template.security_context.secrets),
        chosen=bool(chosen),
    )


def _official_image(template: tasks_pb2.TaskTemplate) -> ImageSpec:
    return officialimages.environment(template.container.image, sdk=template.metadata.runtime.version)


def app(message: app_definition_pb2.App, ground: Ground) -> Declared:
    """What an app declares: a command of its own, or the built-in server. Raises Unsupported or Invalid."""
    container = message.spec.container
    command = tuple(container.command)
    options = {"module": "", "app": message.metadata.id.name}
    if command:
        command += tuple(container.args)
        if command[0] == "fserve":
            raise Unsupported(
                "This app was deployed by the SDK 'flyte' 2, whose server this Tower does not host yet.",
                hint="Deploy it with the SDK of the distribution 'flyte-tower'.",
            )
    else:
        options = _options(list(container.args), kind="app")
    return Declared(
        image=_image(container.config),
        module=options["module"],
        name=options["app"],
        command=command,
        limits=_limits(container.resources, ground),
        env=_free(_env(container.env), ground),
        bundle=message.metadata.code_bundle_uri,
        secrets=bool(message.spec.security_context.secrets),
    )


def process_env(
    declared: Declared, ground: Ground, *, image_env: Mapping[str, str], python: Path, own: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of a process: the machine's ground, then image, declaration, and Tower's own.

    Nothing comes from Tower's own environment, and no name that Tower sets can be set by anybody else (T9).
    `HOME` is the working directory by a name that is the same for all attempts, so that code which reads it
    when imported can still be forked.
    """
    base = {
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
        "VIRTUAL_ENV": str(python.parent.parent),
        "HOME": "/proc/self/cwd",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    tower = {"_U_EP_OVERRIDE": ground.endpoint, "_U_ORG_NAME": ground.org}
    return base | _free(image_env, ground) | dict(declared.env) | tower | dict(own)


def quantity(text: str) -> Fraction:
    """A quantity of Kubernetes: "500m" is 1/2, "1Gi" is 2**30. Raises Invalid."""
    matched = _QUANTITY.fullmatch(text.strip())
    if matched is None or matched[2] not in _UNITS or len(text) > 32:
        raise Invalid(f"{text[:40]!r} is not an amount of a resource.", hint='Write "500m", "2" or "1Gi".')
    return Fraction(matched[1]) * _UNITS[matched[2]]


def _options(arguments: list[str], *, kind: str) -> dict[str, str]:
    wanted = ("module", kind)
    words = arguments[2:]
    found = dict(zip(words[::2], words[1::2], strict=False))
    if (
        arguments[:2] != [_PROGRAM, kind]
        or len(words) != 4
        or any(not found.get(f"--{name}") for name in wanted)
    ):
        raise Unsupported(
            f"This {kind} has no container arguments that Tower can start.",
            hint=f"They read: {_PROGRAM} {kind} --module MODULE --{kind} NAME.",
        )
    return {name: found[f"--{name}"] for name in wanted}


def _image(config: Iterable[object]) -> ImageSpec:
    text = next((pair.value for pair in config if pair.key == "flyte.image"), "")  # type: ignore[attr-defined]
    if not text:
        return ImageSpec()
    try:
        values = json.loads(text)
        return ImageSpec(
            base=str(values.get("base", "debian")),
            python=str(values.get("python", "")),
            pip_packages=_words(values, "pip_packages"),
            apt_packages=_words(values, "apt_packages"),
            requirements=_words(values, "requirements"),
            env_vars={str(name): str(value) for name, value in values.get("env_vars", {}).items()},
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise Invalid("The image's description cannot be read.", cause=str(error)) from error


def _words(values: Mapping[str, object], name: str) -> tuple[str, ...]:
    words = values.get(name, [])
    if not isinstance(words, list):
        raise TypeError(f"{name} is no list")
    return tuple(str(word) for word in words)


def _limits(resources: tasks_pb2.Resources, ground: Ground) -> Limits:
    named = {entry.name: quantity(entry.value) for entry in resources.limits}
    asked = {entry.name: quantity(entry.value) for entry in resources.requests} | named
    if asked.get(_Names.Value("GPU")):
        raise Unsupported("A GPU was asked for, and this Tower has none to give.")
    memory, cpu = named.get(_Names.Value("MEMORY")), named.get(_Names.Value("CPU"))
    return Limits(
        memory=int(memory) if memory else None, cpu=float(cpu) if cpu else None, output=ground.output
    )


def _env(pairs: Iterable[object]) -> dict[str, str]:
    return {pair.key: pair.value for pair in pairs}  # type: ignore[attr-defined]


def _free(env: Mapping[str, str], ground: Ground) -> dict[str, str]:
    return {
        name: value
        for name, value in env.items()
        if name and name not in ground.reserved and "=" not in name and "\0" not in name + value
    }
