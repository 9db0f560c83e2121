"""The bundle: the same content gives the same bytes, and what must not leave the machine stays."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte import _bundle
from flyte._bundle import archive, collect, pack
from flyte.errors import DeploymentError

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}(/[a-z][a-z0-9]{0,6})?\.(py|txt)", fullmatch=True)


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def members(body: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        return tar.getmembers()


@given(st.dictionaries(names, st.binary(max_size=50), min_size=1, max_size=5), st.randoms())
def test_same_content_same_digest(files: dict[str, bytes], random: object) -> None:
    files = {name: content for name, content in files.items() if name.split("/")[0] + ".py" not in files}
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        order = list(files.items())
        random.shuffle(order)  # type: ignore[attr-defined]
        write(Path(one), files)
        write(Path(other), dict(order))
        for path in Path(other).rglob("*"):
            os.utime(path, (1, 1))
        first = pack(collect(Path(one), style="all"))
        second = pack(collect(Path(other), style="all"))
        assert first.body == second.body
        assert first.filename == f"{first.digest}.tar.gz"
        changed = next(iter(files))
        (Path(other) / changed).write_bytes(files[changed] + b"!")
        assert pack(collect(Path(other), style="all")).digest != first.digest


def test_members_say_nothing_about_this_machine(tmp_path: Path) -> None:
    write(tmp_path, {"main.py": "x", "pack/run.sh": "y"})
    (tmp_path / "pack/run.sh").chmod(0o700)
    for member in members(pack(collect(tmp_path, style="all")).body):
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert member.mtime == 315_532_800
        assert member.mode == (0o755 if member.name.endswith(".sh") else 0o644)
        assert not member.name.startswith("/")


def test_all_leaves_out_what_is_ignored(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "main.py": "",
            "data/table.csv": "",
            "data/big.bin": "",
            "data/keep.bin": "",
            ".gitignore": "*.bin\n!keep.bin\n/build/\n# note\n\nlogs/**/*.log\n",
            ".flyteignore": "notes.*",
            "notes.md": "",
            "build/out.py": "",
            "pack/build/in.py": "",
            "logs/a/b/c.log": "",
            "logs/a/b/c.txt": "",
            "pack/.gitignore": "local.py",
            "pack/local.py": "",
            "local.py": "",
            ".git/config": "",
            ".hidden/x.py": "",
            "__pycache__/main.cpython-311.pyc": "",
            ".venv/lib/x.py": "",
            "my-env/pyvenv.cfg": "",
            "my-env/lib/x.py": "",
            "node_modules/m/index.js": "",
        },
    )
    assert collect(tmp_path, style="all").files == (
        "data/keep.bin",
        "data/table.csv",
        "local.py",
        "logs/a/b/c.txt",
        "main.py",
        "pack/build/in.py",
    )


@pytest.mark.parametrize(
    "name",
    [".env", "prod.env", ".env.local", "tls/server.pem", "server.key", "id_rsa", "service-account.json"],
)
def test_credentials_stay_even_if_an_ignore_file_asks_for_them(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"main.py": "", name: "secret", ".flyteignore": f"!{name}\n"})
    selection = collect(tmp_path, style="all")
    assert selection.files == ("main.py",)
    assert selection.left_out == (f"{name}: looks like a credential",)
    assert b"secret" not in pack(selection).body


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"secret.txt": "s", "more/x.txt": "x"})
    root = write(tmp_path / "root", {"main.py": ""})
    (root / "link.txt").symlink_to(outside / "secret.txt")
    (root / "more").symlink_to(outside / "more")
    (root / "loop").symlink_to(root)
    (root / "alias.py").symlink_to(root / "main.py")
    selection = collect(root, style="all")
    assert selection.files == ("alias.py", "main.py")
    assert len(selection.left_out) == 3
    assert all(not member.issym() for member in members(pack(selection).body))


def module(name: str, file: Path | None) -> ModuleType:
    made = ModuleType(name)
    made.__file__ = str(file) if file else None
    return made


def test_loaded_modules_are_those_below_the_root(tmp_path: Path) -> None:
    root = write(
        tmp_path / "root",
        {
            "main.py": "",
            "pack/__init__.py": "",
            "pack/used.py": "",
            "pack/unused.py": "",
            ".venv/lib/dep.py": "",
            "own/pyvenv.cfg": "",
            "own/lib/dep2.py": "",
            "secrets.txt": "",
        },
    )
    elsewhere = write(tmp_path / "elsewhere", {"other.py": ""})
    loaded = [
        module("pack", root / "pack/__init__.py"),
        module("pack.used", root / "pack/used.py"),
        module("dep", root / ".venv/lib/dep.py"),
        module("dep2", root / "own/lib/dep2.py"),
        module("other", elsewhere / "other.py"),
        module("gone", root / "gone.py"),
        module("builtin", None),
    ]
    selection = collect(root, entries=[root / "main.py"], modules=loaded)
    assert selection.files == ("main.py", "pack/__init__.py", "pack/used.py")


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"main.py": "", "data/large.bin": b"x" * 3000})
    monkeypatch.setattr(archive, "MAX_BUNDLE_BYTES", 2000)
    with pytest.raises(DeploymentError, match=r"data/large\.bin") as raised:
        pack(collect(tmp_path, style="all"))
    assert ".flyteignore" in raised.value.hint


def test_home_and_the_root_directory_are_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for root in (tmp_path, Path("/")):
        with pytest.raises(DeploymentError, match="too much"):
            collect(root, style="all")


def test_unknown_style(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="loaded_modules"):
        collect(tmp_path, style="some")  # type: ignore[arg-type]


def test_the_public_names() -> None:
    assert _bundle.COPY_STYLES == ("loaded_modules", "all")
