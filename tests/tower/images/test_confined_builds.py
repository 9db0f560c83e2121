"""Making an image of hostile packages: the tools see only what they need, and no code of a package runs."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import uv
from tests.suites.executor_suite import sleeping

from tower.errors import Fault, Precondition
from tower.executors.process.isolation import Wanted, choose
from tower.images.confined import Confine, Tools, installed
from tower.images.port import ImageSpec
from tower.images.uv import run as uv_run
from tower.images.venv import VenvBuilder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    (folder / "signing.key").write_text("secret")
    return folder


@pytest.fixture
def confine(home: Path) -> Confine:
    found, why = choose(Wanted.PREFERRED, hidden=(home,))
    if not found.mode.namespaces:
        pytest.skip(f"this machine does not isolate: {why}")
    return found.command


def wheel(folder: Path, name: str, files: dict[str, str]) -> None:
    """A package of the index whose files land in site-packages."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in files))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that is asked besides the index."""
    folder = tmp_path / "index"
    folder.mkdir()
    known = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS", "")
    monkeypatch.setenv("UV_FIND_LINKS", ",".join(word for word in (str(folder), known.strip()) if word))
    return folder


async def test_no_code_of_a_package_runs_while_it_is_installed(
    home: Path, confine: Confine, index: Path
) -> None:
    mark = "import os, sys; open(os.path.join(sys.prefix, 'ran'), 'w').close()\n"
    wheel(index, "hostile", {"hostile.pth": mark, "hostile.py": "x = 1\n", "sitecustomize.py": mark})
    builder = VenvBuilder(home, confine=confine)
    made = await builder.ready(ImageSpec(pip_packages=("hostile==1.0",)), progress=lambda _: None)
    folder = made.python.parent.parent
    assert list(folder.glob("lib/*/site-packages/hostile.pth"))
    assert list(folder.glob("lib/*/site-packages/__pycache__/hostile.*.pyc")), "compiled all the same"
    assert not list(folder.rglob("ran"))
    assert not list(builder.sdk.path.rglob("ran"))
    assert folder.stat().st_mode & 0o777 == 0o755
    assert not [path for path in folder.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]


async def test_a_tool_sees_its_folder_and_not_the_home(home: Path, confine: Confine, tmp_path: Path) -> None:
    draft = home / "images" / "draft"
    draft.mkdir(parents=True)
    said: list[str] = []
    code = f"""
import os
for path in ({str(home / "signing.key")!r}, "/proc/{os.getpid()}/environ", {str(tmp_path)!r} + "/new"):
    try:
        open(path, "w" if path.endswith("new") else "r").read()
        print("reached", path)
    except OSError as error:
        print(type(error).__name__)
print(sorted(os.listdir({str(home)!r})), len([n for n in os.listdir("/proc") if n.isdigit()]))
open("made", "w").close()
"""
    python = os.path.realpath(sys.executable)
    tools = Tools(confine, program="uv", seconds=60)
    lib = Path(python).parent.parent / "lib"
    done = await tools.run(
        [python, "-I", "-S", "-c", code], directory=draft, read=[lib], progress=said.append
    )
    assert done.code == 0, done.lines
    assert "reached" not in " ".join(done.lines)
    assert done.lines[-1] == "['images'] 2"
    assert (draft / "made").exists()


async def test_a_tool_that_takes_too_long_is_ended_with_all_it_started(
    home: Path, confine: Confine, tmp_path: Path
) -> None:
    started: list[Sequence[str]] = []

    def watching(arguments: Sequence[str], **shown: object) -> Sequence[str]:
        command = confine(arguments, **shown)  # type: ignore[arg-type]
        started.append(command)
        return command

    mark = f"1000.{os.getpid()}"
    tools = Tools(watching, program="uv", seconds=1)
    script = f"(sleep {mark}) & sleep {mark}"
    with pytest.raises(Fault, match="took longer"):
        await tools.run(["/bin/sh", "-c", script], directory=tmp_path)
    assert shlex.join(started[0]).count(mark) == 2

    async with asyncio.timeout(60):
        while sleeping(mark.encode()):
            await asyncio.sleep(0)


async def test_a_cache_that_the_environment_names_can_be_written_to(
    home: Path, confine: Confine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("UV_CACHE_DIR", str(cache))
    draft = home / "images" / "draft"
    draft.mkdir(parents=True)
    python = os.path.realpath(sys.executable)
    tools = Tools(confine, program=uv.find_uv_bin(), seconds=60)
    made = await tools.uv(
        ["venv", "--no-project", "--allow-existing", "--python", python, draft],
        directory=draft,
        read=installed(python),
    )
    assert made.code == 0, made.lines
    assert list(cache.iterdir()), "the cache is the one that was named"


async def test_a_package_may_bring_a_second_folder_of_packages(home: Path, index: Path) -> None:
    wheel(index, "twofold", {"twofold-1.0.data/data/lib/python2.7/site-packages/twofold.py": "old = True"})
    made = await VenvBuilder(home).ready(ImageSpec(pip_packages=("twofold",)), progress=lambda _: None)
    seen = await uv_run([made.python, "-c", "import flyte; print('good')"], directory=home, seconds=60)
    assert seen.lines[-1:] == ("good",), seen


async def test_a_package_in_the_place_of_towers_files_is_said_so(home: Path, index: Path) -> None:
    for number, taken in enumerate(("flyte-tower.pth", "x.data/data/tower-image.json")):
        name = f"taken{number}"
        wheel(index, name, {f"{taken.replace('x.data', f'{name}-1.0.data')}/x.txt": ""})
        with pytest.raises(Precondition, match=taken.rpartition("/")[2]):
            await VenvBuilder(home).ready(ImageSpec(pip_packages=(name,)), progress=lambda _: None)
