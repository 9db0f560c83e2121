"""Every RPC and every route of every door, for every kind of caller: what they are answered is data (T47).

`tests/cases/matrix/<door>.json` says for each row which callers get which answer: the status, with the code
of a refusal or the place that it leads to, and `refused` where the refusal stands in the audit trail. A row
that is missing there or stale fails, and so does one whose cell changed. `others` are all who are not named.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.matrix_doors import mounted
from tests.matrix_requests import WEBSOCKET, Ask, asked, rpc
from tests.matrix_world import DEAD, ORDER, Matrix, opened

from tower.control.privileges import GRANTABLE
from tower.policy.actions import METHODS, ROUTES, AuditLevel, Row
from tower.store import audit

FOLDER = Path(__file__).parents[2] / "cases" / "matrix"
DOORS = ("gateway", "data", "agent", "nodes", "oauth", "rpc", "rest", "console")
"""In the order in which they are asked: those first that need what others delete."""
LAST = "console POST /signout"
OTHERS = "others"

WHO: dict[str, tuple[str, str, bool, list[str]]] = {
    "nobody": ("nobody", "api_key", False, []),
    "viewer": ("viewer", "api_key", False, []),
    "limited key of root": ("root", "api_key", False, []),
    "token of an issuer": ("corp|maker", "oidc_token", False, []),
    "contributor": ("contributor", "api_key", False, []),
    "service": ("service", "api_key", False, []),
    "keeper": ("keeper", "api_key", False, []),
    "app token of root over TLS": ("root", "app_token", False, ["app"]),
    "app of root": ("root", "app_token", True, ["app"]),
    "run token of root": ("root", "workload", False, ["run"]),
    "agent of a task of root": ("root", "workload", True, ["run"]),
    "task of root": ("root", "workload", True, ["run"]),
    "privileged task of root": ("root", "workload", True, ["run"]),
    "access token of root": ("root", "access_token", False, []),
    "session of root": ("root", "session", False, []),
    "root": ("root", "api_key", False, []),
    "machine": ("machine", "machine", True, []),
}
"""Person, kind of credential, whether the kernel vouches, the kinds of actors on the way."""

HEADS_THAT_DO_LESS = ("console GET /signin/{code}", "console GET /signin/with/{alias}")
"""A HEAD of a mail scanner uses up no sign-in link and begins no sign-in."""
UNSERVED = {400, 401, 403, 404, 405}

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


async def test_a_head_is_answered_as_its_get(matrix: Matrix) -> None:
    """Where it is served; and nowhere does it let in more than the GET, or do what that would."""
    served = {*METHODS, *ROUTES}
    for name in ("anonymous", "nobody", "root", "session of root"):
        caller = matrix.callers[name]
        for ask in rows({route for route in served if " GET " in route or route.startswith("gateway ANY")}):
            if ask.method != "GET" or "/events" in ask.path or ask.row.endswith("/logs"):
                continue
            got = await matrix.answer(caller, ask)
            status, _ = await matrix.call(caller, replace(ask, method="HEAD"))
            if route_of(ask.row).startswith(HEADS_THAT_DO_LESS):
                assert status == 200, ask.row
            elif "openapi" not in ask.row and (door_of(ask.row) == "rest" or "/.tower/" in ask.row):
                # it is not served there
                assert status in {401, 404, 405}, ask.row
            else:
                assert str(status) == got.partition(" ")[0], (name, ask.row)


async def test_no_method_but_those_of_the_table_is_served_to_anybody(matrix: Matrix) -> None:
    table = {route_of(ask.row): ask for ask in rows({*METHODS, *ROUTES})}
    before = await matrix.house.db.read(lambda reader: audit.head(reader).seq)
    for route, ask in table.items():
        if route.startswith("gateway ANY"):
            continue  # whatever the app says
        path = ask.path.partition("?")[0]
        of_path = {
            each.method
            for each in table.values()
            if (each.path.partition("?")[0], each.host) == (path, ask.host)
        }
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - of_path:
            for name in ("anonymous", "root", "machine", "task of root"):
                status, _ = await matrix.call(matrix.callers[name], replace(ask, method=method))
                assert status in UNSERVED, (route, method, name, status)
    events = await matrix.house.db.read(lambda reader: audit.page(reader, limit=500))
    new = {each.event for each in events if each.seq > before}
    assert new <= {"access.refuse", "auth.refuse", "app.use"}, new


async def test_each_caller_is_told_who_they_are_and_nothing_of_what_they_showed(matrix: Matrix) -> None:
    """`whoami` of everybody who is somebody: as whom they act, what they showed, who vouches for it."""
    [ask] = rows({"rest GET /api/v1/whoami"})
    told = {}
    for name, caller in matrix.callers.items():
        status, body = await matrix.call(caller, ask)
        assert status in {200, 401}, name
        if status == 200:
            who = json.loads(body)
            told[name] = (
                who["subject"],
                who["credential"]["kind"],
                who["credential"]["attested"],
                [each.partition(":")[0] for each in who["actors"]],
            )
            secret = caller.key or dict(caller.headers).get(b"cookie", b"\0").decode()
            assert secret not in body.decode(), name
            assert not who["actors"] or who["via_app"] or "run" in told[name][3], name
    assert told == WHO


async def test_no_door_but_the_gateway_accepts_a_websocket(matrix: Matrix) -> None:
    for ask in rows({*METHODS, *ROUTES}):
        if door_of(ask.row) == "gateway":
            continue
        for name in ("anonymous", "root", "session of root", "machine", "task of root"):
            status, _ = await matrix.call(matrix.callers[name], replace(ask, method=WEBSOCKET))
            assert status == 403, (ask.row, name)


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


def test_privileges_open_what_they_are_about_and_nothing_else() -> None:
    """T1: what a task with every privilege is let into, and one without is not, is about those actions."""
    table, opened = {**METHODS, **ROUTES}, set()
    for row, cells in everything().items():
        let = {
            name for name in ("task of root", "privileged task of root", "root") if inside(row, cells[name])
        }
        action = table[route_of(row)].action
        if "task of root" in let:
            assert "privileged task of root" in let, row
        elif "privileged task of root" in let:
            assert "root" in let, row
            assert action is not None, row
            opened.add(action.value)
    assert opened == GRANTABLE - {"key:manage"}, opened  # no row is about that one alone


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
            assert let == {"task of root", "privileged task of root", "agent of a task of root"}, row
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
