"""What Tower reads in specifications of the official SDK, and what it starts its runtime with."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flyteidl2.core import security_pb2
from flyteidl2.imagebuilder import definition_pb2
from flyteidl2.task import task_definition_pb2

from tower.control import builtins, officialimages, officialspecs
from tower.control.reconcile import official
from tower.control.reconcile.plan import Ground
from tower.errors import Exhausted, Fault, Invalid, Precondition, Unsupported
from tower.executors.port import TaskJob
from tower.images.port import ImageSpec

URI = "tower://bundles/flytesnacks/development/0123/fast.tar.gz"
BASE = "ghcr.io/flyteorg/flyte:py3.11-v2.12.1"
GROUND = Ground(endpoint="https://127.0.0.1:8443", org="tower", reserved=frozenset(), output=1)
ROW: Any = SimpleNamespace(run="r1", action="a0", created_at=0.0)
PYTHON = Path("/images/x/bin/python")
FOLDER = Path("/rooms/y/.tower")


def spec(*more: str, bundle: str = URI) -> task_definition_pb2.TaskSpec:
    made = task_definition_pb2.TaskSpec()
    template = made.task_template
    words = "a0 --inputs {{.input}} --outputs-path {{.outputPrefix}} --raw-data-path {{.rawOutputDataPrefix}}"
    words += " --checkpoint-path {{.checkpointOutputPrefix}} --run-name {{.runName}} --name {{.actionName}}"
    words += " --run-start-time {{.runStartTime}}"
    template.container.args.extend([*words.split(), "--prev-checkpoint", "{{.prevCheckpointPrefix}}"])
    if bundle:
        template.container.args.extend(["--tgz", bundle])
    template.container.args.extend([*more, "mod", "tasks", "instance", "hello"])
    template.container.env.add(key="_F_SYS_PATH", value="./.")
    template.container.image = BASE
    template.metadata.runtime.version = "2.12.1"
    template.metadata.code_bundle_uri = bundle
    return made


def test_places_and_names_are_filled_in() -> None:
    words = official.command(spec(), python=PYTHON, folder=FOLDER, row=ROW)
    assert words[0] == "/images/x/bin/a0"
    given = dict(zip(words[1::2], words[2::2], strict=False))
    assert given["--inputs"] == "/rooms/y/.tower/inputs.pb"
    assert given["--outputs-path"] == "/rooms/y/.tower"
    assert given["--tgz"] == "/rooms/y/.tower/code.tar.gz"
    assert (given["--run-name"], given["--name"]) == ("r1", "a0")
    assert given["--run-start-time"] == "1970-01-01T00:00:00+00:00"
    assert given["--prev-checkpoint"] == ""
    assert not any("{{" in word for word in words)


def test_the_environment_leads_to_tower_and_holds_no_credential() -> None:
    env = official.environment(GROUND, python=PYTHON, folder=FOLDER)
    assert env["_U_EP_OVERRIDE"] == "https://127.0.0.1:8443"
    assert env["FLYTE_AUTH_TYPE"] == "ExternalCommand"
    assert json.loads(env["FLYTE_AUTH_COMMAND"]) == [
        "/images/x/bin/python", "-I", "-S", "/images/x/bin/tower-ask", "token",
    ]  # fmt: skip
    assert "SSL_CERT_FILE" not in env
    trusting = official.environment(replace(GROUND, trust=Path("/ca")), python=PYTHON, folder=FOLDER)
    assert trusting["SSL_CERT_FILE"] == "/rooms/y/.tower/trust.pem"
    named = official.environment(
        replace(GROUND, endpoint="https://localhost:1"), python=PYTHON, folder=FOLDER
    )
    assert named["_U_EP_OVERRIDE"] == "https://127.0.0.1:1"
    for name in ("https://a.localhost:1", "https://docker.example.com"):
        with pytest.raises(Precondition, match="plain HTTP"):
            official.environment(replace(GROUND, endpoint=name), python=PYTHON, folder=FOLDER)
    with pytest.raises(Precondition, match="over TLS only"):
        official.environment(replace(GROUND, endpoint="http://127.0.0.1:1"), python=PYTHON, folder=FOLDER)


def test_a_bundle_that_only_the_arguments_name_is_refused() -> None:
    assert official.bundle(spec()) == "code.tar.gz"
    assert official.bundle(spec(bundle="")) == ""
    with pytest.raises(Invalid):
        official.bundle(spec("--tgz", "https://elsewhere/x.tar.gz", bundle=""))
    with pytest.raises(Invalid):
        official.bundle(spec("--pkl", URI))


def test_secrets_have_the_program_started_by_who_gets_them() -> None:
    declared = spec()
    declared.task_template.security_context.secrets.add(key="k", env_var="K")
    words = official.command(declared, python=PYTHON, folder=FOLDER, row=ROW)
    assert words[3:6] == ("/images/x/bin/tower-ask", "start", "/images/x/bin/a0")
    declared.task_template.security_context.secrets.add(
        key="f", mount_requirement=security_pb2.Secret.MountType.FILE
    )
    assert official.command(declared, python=PYTHON, folder=FOLDER, row=ROW) == words


def test_files_of_secrets_are_where_the_sdk_says_that_they_are() -> None:
    declared = spec()
    job = TaskJob(
        *("a", PYTHON, None, "", "", FOLDER, FOLDER / "agent"),
        env={"FLYTE_ATTEMPT_FACTS": json.dumps({"secrets": "/dev/shm/of-this-attempt"})},
    )
    declared.task_template.security_context.secrets.add(key="k", env_var="K")
    assert official.links(declared, job) == {}
    declared.task_template.security_context.secrets.add(
        key="f", mount_requirement=security_pb2.Secret.MountType.FILE
    )
    assert official.links(declared, job) == {"/etc/flyte/secrets": "/dev/shm/of-this-attempt"}


def test_a_child_is_known_as_the_deployed_task() -> None:
    deployed, parent = spec(), spec()
    deployed.documentation.SetInParent()
    asked = spec()
    del asked.task_template.container.env[:]
    words = list(asked.task_template.container.args)
    words[words.index(URI)] = "/rooms/y/.tower/code.tar.gz"
    del asked.task_template.container.args[:]
    asked.task_template.container.args.extend(words)
    asked.task_template.metadata.code_bundle_uri = "/rooms/y/.tower/code.tar.gz"
    assert officialspecs.same(officialspecs.settled(asked, parent), deployed)


@pytest.mark.parametrize("change", ["image", "env", "args", "resources", "retries", "bundle"])
def test_another_task_is_not_taken_for_it(change: str) -> None:
    deployed, asked = spec(), spec()
    template = asked.task_template
    match change:
        case "image":
            template.container.image += "x"
        case "env":
            template.container.env.add(key="A", value="1")
        case "args":
            template.container.args[-1] = "other"
        case "resources":
            template.container.resources.limits.add(name=3, value="1Gi")
        case "retries":
            template.metadata.retries.retries = 9
        case _:
            template.metadata.code_bundle_uri = URI.replace("0123", "4567")
    assert not officialspecs.same(officialspecs.settled(asked, spec()), deployed)


def layers(*made: definition_pb2.Layer, base: str = BASE) -> bytes:
    data: bytes = definition_pb2.ImageSpec(base_image=base, layers=made).SerializeToString()
    return data


def pip(*packages: str, **options: Any) -> definition_pb2.Layer:
    inner = definition_pb2.PipPackages(packages=packages, options=definition_pb2.PipOptions(**options))
    return definition_pb2.Layer(pip_packages=inner)


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{name}.txt")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue())


def _negative() -> bytes:
    """A file of -512 bytes: who goes by that comes back to it for ever."""
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = b"\xff" * 10 + b"\xfe\x00"
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(block) * 20


def _many() -> bytes:
    return tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT) * 20_001 + tarfile.TarInfo("more.txt").tobuf(
        tarfile.USTAR_FORMAT
    )


def test_an_image_is_its_own_description() -> None:
    name = officialimages.described(
        layers(
            pip("numpy==2.0", "six"),
            definition_pb2.Layer(requirements=definition_pb2.Requirements(file="more.txt")),
            definition_pb2.Layer(apt_packages=definition_pb2.AptPackages(packages=["git"])),
            definition_pb2.Layer(env=definition_pb2.Env(env_variables={"A": "1&2", "B": "="})),
        ),
        archive(more=b"# needed\nattrs>=23  # by us\n\n"),
    )
    assert name.startswith("tower://image/py3.11-v2.12.1?")
    assert officialimages.environment(name, sdk="2.12.1") == ImageSpec(
        python="3.11",
        sdk="flyte==2.12.1",
        pip_packages=("numpy==2.0", "six", "attrs>=23"),
        apt_packages=("git",),
        env_vars={"A": "1&2", "B": "="},
    )
    further = officialimages.described(layers(pip("idna"), base=name), b"")
    assert officialimages.environment(further, sdk="2.12.1").pip_packages[-1] == "idna"
    assert officialimages.environment(BASE, sdk="2.12.1") == ImageSpec(python="3.11", sdk="flyte==2.12.1")


@pytest.mark.parametrize(
    "made",
    [
        layers(base="nvidia/cuda:12"),
        layers(pip("x", index_url="https://elsewhere")),
        layers(pip("x", extra_index_urls=["https://elsewhere"])),
        layers(pip("x", extra_args="--find-links /")),
        layers(pip("x", pre=True)),
        layers(definition_pb2.Layer(commands=definition_pb2.Commands(cmd=["rm -rf /"]))),
        layers(definition_pb2.Layer(copy_config=definition_pb2.CopyConfig(src="a", dst="/etc"))),
        layers(definition_pb2.Layer()),
        layers(definition_pb2.Layer(requirements=definition_pb2.Requirements(file="absent.txt"))),
        layers(pip(*(f"package{number}" for number in range(20_000)))),
        layers(*(definition_pb2.Layer(requirements=definition_pb2.Requirements(file="more.txt")),) * 101),
        b"\xff\xff",
    ],
)
def test_layers_that_cannot_be_made_here_are_refused(made: bytes) -> None:
    with pytest.raises((Unsupported, Invalid, Exhausted)):
        officialimages.described(made, archive(more=b"six"))


@pytest.mark.parametrize(
    "context",
    [
        b"",
        b"no archive",
        gzip.compress(b"\0" * (80 << 20), mtime=0),  # a name of a test has no time in it
        gzip.compress(_negative(), mtime=0),
        gzip.compress(_many(), mtime=0),
    ],
    ids=["empty", "no archive", "a bomb", "less than nothing", "many files"],
)
def test_an_archive_of_anything_is_survived(context: bytes) -> None:
    layer = definition_pb2.Layer(requirements=definition_pb2.Requirements(file="more.txt"))
    with pytest.raises(Fault):
        officialimages.described(layers(layer), context)


@pytest.mark.parametrize(
    ("name", "sdk"),
    [
        ("localhost:30000/flyte:abc", "2.12.1"),
        (f"{BASE}?pip=x", "2.12.1"),
        ("tower://image/py3.11-v2.12.1?rm=x", "2.12.1"),
        ("tower://image/py3.11-v2.12.1?pip", "2.12.1"),
        (BASE, "1.9.0"),
        (BASE, "2.12.1 --index-url https://elsewhere"),
        (BASE, ""),
    ],
)
def test_names_of_images_that_cannot_be_used_are_refused(name: str, sdk: str) -> None:
    with pytest.raises((Unsupported, Invalid)):
        officialimages.environment(name, sdk=sdk)


def test_the_task_that_makes_images_is_nobody_elses() -> None:
    found = builtins.find(builtins.BUILD_IMAGE)
    assert found is not None
    assert builtins.builds_image(found.spec)
    assert not builtins.builds_image(spec())
    assert builtins.find(("flytesnacks", "production", "build-image")) is None
