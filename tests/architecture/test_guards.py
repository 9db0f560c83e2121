"""What names callers and decides is the same in every Tower that this project starts."""

from __future__ import annotations

import ast
from pathlib import Path

from tower.control.access import Access
from tower.control.standing import Standing
from tower.identity.chain import Chain
from tower.main.guards import GUARDS, Guards

SOURCE = Path(__file__).parents[2] / "src"


def test_the_shipped_guards_are_the_only_ones_that_are_made() -> None:
    made = [
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Guards"
    ]
    assert made == ["tower/main/guards.py"]
    assert Guards(chain=Chain, access=Access, standing=Standing) == GUARDS


def test_nothing_in_the_product_starts_with_others() -> None:
    given = [
        ast.unparse(node)
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] in {"up", "compose"}
        and (len(node.args) > 1 or any(each.arg == "guards" for each in node.keywords))
    ]
    assert given == ["compose(settings, guards)"], "only `tower.main.server` passes on what it was given"
