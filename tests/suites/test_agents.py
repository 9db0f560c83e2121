"""What a task finds at its socket, whether Tower serves it or an agent beside: one behaviour."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.suites.rooms import House, deploy
from tests.threats.conftest import DOMAIN, PROJECT, opened
from tests.tower_process import Tower

MODES = ("inside", "beside")


@pytest.fixture(scope="module", params=MODES)
def tower(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Tower, str]]:
    folder = tmp_path_factory.mktemp(request.param)
    with Tower.started(folder / "home", "--agent", request.param) as running:
        running.add_people()
        for lab in opened(running):
            deploy(lab, folder)
        yield running, request.param


@pytest.fixture
def house(tower: tuple[Tower, str]) -> Iterator[House]:
    running, mode = tower
    for lab in opened(running):
        with House.opened(lab, mode) as made:
            yield made


def knock(path: str, target: str = "/flyteidl2.auth.IdentityService/UserInfo") -> str:
    """The status that a stranger, this process, gets at a socket."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        head = f"POST {target} HTTP/1.1\r\nhost: x\r\nx-flyte-agent: 1\r\ncontent-length: 0\r\n"
        link.sendall(head.encode() + b"connection: close\r\n\r\n")
        return link.recv(4096).split(b" ")[1].decode()


def metrics(house: House, room_socket: str) -> str:
    """What counts the refusals: of Tower, or of the attempt's agent for whoever runs it."""
    if house.mode == "inside":
        return house.lab.client.get("/metrics", headers=house.lab.bearer("admin")).text
    return over(str(Path(room_socket).with_name("health")), "/metrics")


def over(path: str, target: str) -> str:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        link.sendall(
            f"GET {target} HTTP/1.1\r\nhost: x\r\nx-flyte-agent: 1\r\nconnection: close\r\n\r\n".encode()
        )
        answer = b""
        while chunk := link.recv(65536):
            answer += chunk
    return answer.decode()


def test_a_task_is_its_executor(house: House) -> None:
    for name in ("alice", "bob"):
        room = house.room(name)
        assert room.who() == name
        assert room.do("answer = remote.User.get().subject()") == name
        facts = json.loads(room.do('answer = ask("/api/v1/whoami", "GET", b"")[1]'))
        assert facts["name"] == name
        assert facts["actors"] == [f"run:{PROJECT}/{DOMAIN}/{room.run}/a0/1"]
        room.end()


def test_strangers_are_refused_counted_and_logged(house: House) -> None:
    alice, bob = house.room("alice"), house.room("bob")
    assert knock(alice.socket) == "403"
    theirs = bob.do(f"answer = ask('/api/v1/whoami', 'GET', b'', {alice.socket!r})")
    assert theirs[0] in {"403", "cut"}
    assert alice.who() == "alice"
    counted = metrics(house, alice.socket)
    assert 'tower_agent_refusals_total{reason="stranger"}' in counted
    lines = [json.loads(line) for line in house.tower.log.splitlines() if line.startswith("{")]
    refused = [line for line in lines if line.get("event") == "connection refused"]
    assert {line["reason"] for line in refused} == {"stranger"}
    assert all(line["peer_pid"] > 0 for line in refused)
    alice.end()
    bob.end()


def test_the_header_is_required(house: House) -> None:
    room = house.room()
    assert room.do('answer = ask("/api/v1/whoami", "GET", b"", None, "accept: */*")[0]') == "403"
    assert room.do('answer = ask("/api/v1/whoami", "GET", b"", None, "x-flyte-agent: 2")[0]') == "403"
    assert room.do('answer = ask("/api/v1/whoami", "GET", b"")[0]') == "200"
    room.end()


def test_nothing_else_is_behind_the_socket(house: House) -> None:
    room = house.room()
    tried = room.do(
        """
        answer = [ask(path, "GET", b"")[0] for path in ("/", "/apps/x/y/z", "/oauth2/authorize", "/metrics2")]
        """
    )
    assert set(tried) == {"404"}
    two = room.do(
        'answer = ask("/api/v1/whoami", "GET", b"", None, "x-flyte-agent: 1", "authorization: Bearer x")[0]'
    )
    assert two == "401"
    room.end()


def test_the_socket_is_gone_with_the_run(house: House) -> None:
    room = house.room()
    health = Path(room.socket).with_name("health")
    assert health.exists() is (house.mode == "beside")
    room.end()
    house.lab.wait("alice", room.run)
    for path in (room.socket, str(health)):
        with pytest.raises(OSError, match=r"refused|No such file"):
            knock(path)


def test_t05_a_task_that_outlives_its_abort_is_nobody(house: House) -> None:
    """It shuts its ears to the request to end; what it calls from then on is refused."""
    room = house.room()
    room.do("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    house.abort("alice", room.run)
    told = room.who()
    assert not told.startswith(("alice", "200")), told
    room.gone()


def test_t05_a_retry_has_the_identity_and_the_old_attempt_none(house: House) -> None:
    first = house.room()
    assert (first.attempt, first.who()) == ("1", "alice")
    first.fail()
    second = house.next()
    assert (second.run, second.attempt, second.who()) == (first.run, "2", "alice")
    assert second.socket != first.socket
    with pytest.raises(OSError, match=r"refused|No such file"):
        knock(first.socket)
    assert second.do(f"answer = ask('/api/v1/whoami', 'GET', b'', {first.socket!r})[0]") == "cut"
    second.end()


def test_sub_tasks_and_runs_of_a_task(house: House) -> None:
    """Calls that stream: a child's result, and a run that is waited for."""
    room = house.room("bob")
    assert room.do("answer = leaf(3)") == "bob 3"
    assert room.do("answer = list(flyte.map(leaf, [1, 2]))") == ["bob 1", "bob 2"]
    started = """
    run = flyte.run(remote.Task.get(name="room.leaf"), x=7)
    run.wait()
    answer = [run.phase, run.outputs()[0]]
    """
    assert room.do(started) == ["SUCCEEDED", "bob 7"]
    room.end()


def test_large_bodies_go_up_and_down(house: House) -> None:
    room = house.room()
    size = 3_000_000
    data = bytes(range(256)) * (size // 256)
    asked = {
        "project": PROJECT,
        "domain": DOMAIN,
        "filename": "blob.bin",
        "contentMd5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
        "contentLength": len(data),
    }
    told = room.do(
        f"""
        method = "/flyteidl2.dataproxy.DataProxyService/CreateUploadLocation"
        place = ask(method, body=json.dumps({asked!r}).encode())
        url = json.loads(place[1])["signedUrl"]
        path = "/" + url.split("/", 3)[3]
        data = bytes(range(256)) * ({size} // 256)
        answer = ask(path, "PUT", data, None, "x-flyte-agent: 1", "content-md5: {asked["contentMd5"]}")
        """
    )
    assert told[0] == "200", told
    big = room.do(
        'answer = leaf.name if hasattr(leaf, "name") else "", len(ask("/api/openapi.json", "GET", b"")[1])'
    )
    assert big[1] > 50_000
    room.end()


def test_t07_disabled_while_it_runs(house: House) -> None:
    room = house.room("bob")
    start = f'answer = flyte.run(remote.Task.get(name="room.stay"), port={house.port}, word="child").name'
    child = room.do(start)
    below = house.next()
    assert (below.run, below.who(), room.who()) == (child, "bob", "bob")
    house.tower.tower("users", "disable", "bob")
    try:
        for each in (room, below):
            each.nobody()
    finally:
        house.tower.tower("users", "enable", "bob")


@pytest.mark.parametrize("who", ["alice", "admin"])
def test_a_grant_is_listed_and_revoked(house: House, who: str) -> None:
    """By its person or an administrator: the task and what it started are nobody, and end."""
    room = house.room("alice")
    room.do(f'answer = flyte.run(remote.Task.get(name="room.stay"), port={house.port}, word="child").name')
    below = house.next()
    assert below.who() == "alice"
    user = house.lab.admin_key if who == "admin" else who
    scope = ("--project", PROJECT, "--domain", DOMAIN, "-o", "json")
    listed = json.loads(house.tower.flyte(*scope, "get", "grant", user=user).out)
    assert {room.run, below.run} <= {grant["run"] for grant in listed}
    refused = house.tower.flyte(*scope, "delete", "grant", room.run, user="bob", check=False)
    assert refused.status != 0
    assert room.who() == "alice"
    house.tower.flyte(*scope, "delete", "grant", room.run, user=user)
    for each in (room, below):
        each.nobody()
    assert house.lab.audit(event="grant.revoke")[0]["subject"] == who


def test_t38_the_run_of_the_socket_is_the_parent(house: House) -> None:
    """Whatever the message names: another run, another parent, with another's socket path or headers."""
    victim, room = house.room("bob"), house.room("alice")
    where = {"run": {"project": PROJECT, "domain": DOMAIN, "name": victim.run}, "name": "a1"}
    task = {"id": {"project": PROJECT, "domain": DOMAIN, "name": "room.leaf"}}
    child = {"action": {"actionId": where, "parentActionName": "a0", "task": task}}
    method = "/flyteidl2.actions.ActionsService/Enqueue"
    for header in ("accept: */*", "x-tower-agent: x", f"x-flyte-run: {victim.run}"):
        call = (
            f"ask({method!r}, 'POST', {json.dumps(child).encode()!r}, None, 'x-flyte-agent: 1', {header!r})"
        )
        told = room.do(f"answer = {call}")
        assert told[0] == "403", told
    refused = house.lab.audit(event="access.refuse", subject="alice")[0]
    assert refused["decision"] == "not-its-own-run"
    for each in (victim, room):
        each.end()
