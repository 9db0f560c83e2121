"""Every RPC and every route of every door, for every kind of caller: what they are answered is data (T47).

`tests/cases/matrix/<door>.json` says for each row which callers get which answer: the status, with the code
of a refusal or the place that it leads to, and `refused` where the refusal stands in the audit trail. A row
that is missing there or stale fails, and so does one whose cell changed. `others` are all who are not named.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.matrix_doors import mounted
from tests.matrix_requests import Ask, asked, rpc
from tests.matrix_world import DEAD, ORDER, Matrix, opened

from tower.policy.actions import METHODS, ROUTES, AuditLevel, Row

FOLDER = Path(__file__).parents[2] / "cases" / "matrix"
DOORS = ("gateway", "data", "agent", "nodes", "oauth", "rpc", "rest", "console")
"""In the order in which they are asked: those first that need what others delete."""
LAST = "console POST /signout"
OTHERS = "others"

Cells = dict[str, str]
"""What each caller is answered."""


def door_of(row: str) -> str:
    return "rpc" if row.startswith("/") else row.partition(" ")[0]


def route_of(row: str) -> str:
    return row.partition(" (")[0]


def read(door: str) -> dict[str, Cells]:
    """The file of a door, row by row and caller by caller."""
    found = {}
    for row, answers in json.loads((FOLDER / f"{door}.json").read_text()).items():
        named = {name: answer for answer, names in answers.items() if names != OTHERS for name in names}
        rest = [answer for answer, names in answers.items() if names == OTHERS]
        assert len(rest) <= 1, row
        found[row] = {name: named[name] if name in named else rest[0] for name in ORDER}
        assert named.keys() <= set(ORDER), row
    return found


def write(door: str, rows: dict[str, Cells]) -> None:
    """The inverse of `read`: each answer with those who get it, and the refused in the crowd as `others`."""
    told = []
    for row, cells in rows.items():
        answers: dict[str, Any] = {}
        for name, answer in cells.items():
            answers.setdefault(answer, []).append(name)
        crowd = [
            each for each, names in answers.items() if "anonymous" in names or not inside(row, each)
        ]  # who is let in is named, unless everybody is
        most = max(crowd, key=lambda each: len(answers[each]))
        answers[most] = OTHERS if len(answers[most]) > 5 else answers[most]
        lines = [f"    {json.dumps(each)}: {json.dumps(names)}" for each, names in answers.items()]
        told.append(f"  {json.dumps(row)}: {{\n" + ",\n".join(lines) + "\n  }")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{door}.json").write_text("{\n" + ",\n".join(told) + "\n}\n")


def inside(row: str, answer: str) -> bool:
    """Whether an answer lets its caller in: past authorisation, if it asked for what is not there."""
    status, *told = answer.split(" ")
    if status in {"401", "403"} or {"unauthenticated", "permission_denied"} & set(told):
        return False
    if told[-1:] in (["refused"], ["nowhere"]) or told[:1] in (["/signin"], ["/login"]):
        return False
    return door_of(row) in {"rpc", "rest", "console"} or int(status) < 400


@pytest.fixture
async def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Matrix]:
    async with opened(tmp_path, monkeypatch) as made:
        yield made


def rows(routes: set[str]) -> list[Ask]:
    """Every request of what is mounted, in the order of the table."""
    table = [*METHODS, *ROUTES]
    found = []
    for route in sorted(
        routes, key=lambda each: (each == LAST, DOORS.index(door_of(each)), table.index(each))
    ):
        found += [rpc(route)] if door_of(route) == "rpc" else list(asked(route))
    return found


async def test_who_is_answered_what_is_what_the_files_say(matrix: Matrix) -> None:
    routes = mounted(matrix.front)
    assert routes == {*METHODS, *ROUTES}, "what is mounted and what the table has differ"
    found: dict[str, dict[str, Cells]] = {door: {} for door in DOORS}
    for ask in rows(routes):
        found[door_of(ask.row)][ask.row] = {
            name: await matrix.answer(caller, ask) for name, caller in matrix.callers.items()
        }
    if os.environ.get("TOWER_WRITE_MATRIX"):  # then read the difference, line by line
        for door, cells in found.items():
            write(door, cells)
    for door, cells in found.items():
        expected = read(door)
        assert cells.keys() == expected.keys()
        assert cells == expected


def everything() -> dict[str, Cells]:
    return {row: cells for door in DOORS for row, cells in read(door).items()}


def test_there_is_a_file_of_every_door_and_no_other() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(DOORS)


def test_who_is_nobody_gets_what_everybody_gets() -> None:
    """A credential that never held, or holds no more, opens nothing: not even what is open without one."""
    for row, cells in everything().items():
        for name in DEAD:
            if inside(row, cells[name]):
                assert inside(row, cells["anonymous"]), f"{row}: {name}"


def test_what_is_open_to_everybody_is_listed_as_such() -> None:
    """Anonymous callers get in where the table says so, and to apps that their owners opened."""
    table = {**METHODS, **ROUTES}
    for row, cells in everything().items():
        if inside(row, cells["anonymous"]):
            opened_by_owner = "public path)" in row or "for everybody)" in row
            assert table[route_of(row)].anonymous or (opened_by_owner and "below" not in row), row


def test_one_who_acts_is_the_same_however_they_show_it() -> None:
    for row, cells in everything().items():
        let = {name for name in ORDER if inside(row, cells[name])}
        browser, door = "console " in row or "authorize" in row, door_of(row)
        if door in {"rpc", "rest"}:
            assert len({name in let for name in ("root", "session of root", "access token of root")}) == 1, (
                row
            )
            assert len({name in let for name in ("app of root", "app token of root over TLS")}) == 1, row
            assert len({name in let for name in ("task of root", "agent of a task of root")}) == 1, row
            assert len({name in let for name in ("task of root", "run token of root")}) == 1, row
            assert ("token of an issuer" in let) == ("contributor" in let), row
        if "another site with root's session" in let and "anonymous" not in let:
            # a page may be opened from elsewhere, and seen by the person alone
            assert browser, row
            assert " GET " in row, row
        if door == "agent":
            assert let == {"task of root", "agent of a task of root"}, row
        if door == "nodes":
            assert let <= {"agent of a task of root"}, row
        if "delivery of a third party" in let and "anonymous" not in let:
            assert door == "gateway", row
            assert "(a path of a webhook)" in row, row
        if "session of root at an app" in let and "anonymous" not in let:
            assert row.startswith("gateway ANY <app host>"), row


def test_the_files_keep_to_the_rules() -> None:
    """What must hold of any matrix, whatever it says in detail."""
    table: dict[str, Row] = {**METHODS, **ROUTES}
    for path, cells in everything().items():
        row, passing = table[route_of(path)], {name for name in ORDER if inside(path, cells[name])}
        if row.action is None or door_of(path) not in {"rpc", "rest", "console"}:
            continue
        assert not passing & {*DEAD}, path
        assert "viewer" not in passing or "contributor" in passing, path
        assert "contributor" not in passing or {"keeper", "service"} <= passing, path
        assert "keeper" not in passing or "root" in passing, path
        assert "nobody" not in passing or "root" in passing, path
        own = {"key:manage-own", "self:view", "app:use"}
        if row.level is AuditLevel.EFFECT and row.action not in own:
            assert not passing & {"nobody", "viewer", "limited key of root"}, path
        if row.action in {"key:manage", "user:manage", "policy:manage", "audit:prune"}:
            assert not passing & {"app of root", "task of root"}, path
        if row.action in {"key:manage", "user:manage", "audit:prune"}:
            assert "keeper" not in passing, path
