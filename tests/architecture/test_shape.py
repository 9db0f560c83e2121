"""The shape of the source: length, names, and that no file is forgotten or bound to one machine."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
FILES = sorted(path for path in SOURCE.rglob("*.py"))
PACKAGES = ("flyte", "tower", "flytekit")
LONGEST = 500
NO_ROOMS = {"util", "utils", "helper", "helpers", "common", "misc", "lib", "base"}
REVISIONS = "migrations/versions"

# Started by name and not by an import: command lines, processes of their own.
STARTED_BY_NAME = re.compile(r"(\A|\.)(__main__|worker|serve|command|task|cli|launch|ask)\Z")


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Every module that a file may name: imports anywhere in it, and the dotted names in its strings."""
    found: set[str] = set()
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                found.update(name.name for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = module or ""
                if level:
                    above = package.split(".")[: len(package.split(".")) - level + 1]
                    base = ".".join([*above, *([module] if module else [])])
                found.add(base)
                found.update(f"{base}.{name.name}" for name in names)
            case ast.Constant(value=str(text)) if re.fullmatch(r"\.?[a-z_][\w.]*(:\w+)?", text):
                text = text.partition(":")[0]
                found.add(text)
                found.add(f"{package}{text}" if text.startswith(".") else f"{package}.{text}")
            case ast.Constant(value=str(text)) if re.fullmatch(r"[a-z_]+\.py", text):
                found.add(f"{package}.{text.removesuffix('.py')}")  # a script beside this file
            case _:
                pass
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_is_one_noun_or_verb(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= LONGEST, f"{lines} lines: this is more than one thing"
    assert path.stem.strip("_") not in NO_ROOMS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_says_what_it_is_and_reads_annotations_late(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "no docstring"
    if len(tree.body) > 1:
        assert "from __future__ import annotations" in path.read_text()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_used(package: str) -> None:
    files = [path for path in FILES if path.is_relative_to(SOURCE / package)]
    assert files, "no such package"
    named: set[str] = set()
    for path in files:
        named |= imports_of(path) - {module_of(path)}
    forgotten = [
        module_of(path)
        for path in files
        if path.name != "__init__.py"
        and REVISIONS not in path.as_posix()
        and module_of(path) not in named
        and not STARTED_BY_NAME.search(module_of(path))
    ]
    assert forgotten == []


def tracked_texts() -> list[Path]:
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".cedar", ".html", ".css", ".js", ""}
    folders = ["src", "tests", "bench", "docs", "examples", ".ci"]
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    top = [path for path in ROOT.iterdir() if path.name not in {"uv.lock", ".git"}]  # a file in a worktree
    return [
        path
        for path in inside + top
        if path.is_file() and path.suffix in kinds and "__pycache__" not in path.parts
    ]


def test_nothing_names_the_machine_that_it_was_written_on() -> None:
    # put together here, so that this file does not name it either
    private = re.compile("/" + r"work/(main|shared)\b|/" + r"tmp/plan|/" + "home/[a-z]+/")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked_texts()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if private.search(line)
    ]
    assert found == []


def test_only_the_seed_tests_know_where_the_seed_documents_are() -> None:
    word = "../" + "shared"
    found = {
        path.relative_to(ROOT).as_posix()
        for path in tracked_texts()
        if path.suffix == ".py" and word in path.read_text()
    }
    assert all(name.startswith("tests/seeds/") for name in found), found


def test_tower_offers_no_surface_of_its_own() -> None:
    """A server is started, not imported: the package exports nothing."""
    tree = ast.parse((SOURCE / "tower" / "__init__.py").read_text())
    names = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert [name for name in names if not name.startswith("_")] == []
    assert not any(isinstance(node, ast.ImportFrom) and node.module != "__future__" for node in tree.body)


def test_the_layers_of_both_packages_stand_in_the_import_contracts() -> None:
    contracts = (ROOT / "pyproject.toml").read_text()
    for package in ("flyte", "tower"):
        rooms = {path.stem if path.is_file() else path.name for path in (SOURCE / package).iterdir()}
        rooms = {room for room in rooms if room not in {"__init__", "__main__", "__pycache__", "py"}}
        for room in rooms:
            assert re.search(rf"[\"|(: ]{re.escape(room)}[\"|): ]", contracts), (
                f"{package}.{room} has no layer"
            )


def test_what_both_command_lines_do_with_a_new_file_is_one_thing() -> None:
    """Neither may import the other's, so it is there twice; a change of one is a change of both."""
    own, other = SOURCE / "tower/cli/newfile.py", SOURCE / "flyte/cli/_newfile.py"
    assert own.read_text() == other.read_text()
