"""Requests over the agent's socket: how answers are read, when a connection serves again, what fails how."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpcore
import pytest

from flyte.transport._pool import Pools

Answering = Callable[[bytes], bytes | None]


@contextlib.asynccontextmanager
async def server(
    folder: Path, answering: Answering, *, last: bool = False
) -> AsyncIterator[tuple[Pools, list[bytes], list[int]]]:
    """Answers each request with bytes; None closes, and so does any that is the `last`.

    Gives the requests and the numbers of their connections.
    """
    heads: list[bytes] = []
    used: list[int] = []
    serving: set[asyncio.Task[None] | None] = set()
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        serving.add(asyncio.current_task())
        mine = count
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b""
                )
                body = await reader.readexactly(int(length.partition(b":")[2] or b"0"))
                heads.append(head + body)
                used.append(mine)
                answer = answering(head + body)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if last:
                    break
        writer.close()

    path = folder / "agent"
    listening = await asyncio.start_unix_server(serve, path)
    pools = Pools(uds=str(path))
    try:
        yield pools, heads, used
    finally:
        await pools.aclose()
        listening.close()
        await asyncio.gather(*(task for task in serving if task is not None))


async def ask(
    pools: Pools,
    *,
    content: bytes | AsyncIterator[bytes] = b"{}",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    seconds: float | None = 5.0,
) -> tuple[int, bytes]:
    async with pools.request(
        "unary", "POST", "http://tower/a?b=c", headers=headers, content=content, read_seconds=seconds
    ) as answer:
        return answer.status, b"".join([piece async for piece in answer.aiter_stream()])


def plain(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def test_one_connection_serves_one_call_after_the_other(tmp_path: Path) -> None:
    async with server(tmp_path, lambda _: plain(b"hello")) as (pools, heads, used):
        assert [await ask(pools) for _ in range(3)] == [(200, b"hello")] * 3
        assert used == [1, 1, 1]
        assert heads[0] == b"POST /a?b=c HTTP/1.1\r\nhost: tower\r\ncontent-length: 2\r\n\r\n{}"


async def test_calls_at_once_have_a_connection_each(tmp_path: Path) -> None:
    async with server(tmp_path, lambda _: plain(b"x")) as (pools, _, used):
        await asyncio.gather(*(ask(pools) for _ in range(5)))
        assert len(set(used)) == 5


async def test_chunks_and_trailers(tmp_path: Path) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nchecksum: 1\r\n\r\n"
    )
    async with server(tmp_path, lambda _: answer) as (pools, _, used):
        assert await ask(pools) == (200, b"abc0123456789")
        assert await ask(pools) == (200, b"abc0123456789")
        assert used == [1, 1]


async def test_an_answer_comes_after_what_is_none_yet(tmp_path: Path) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    async with server(tmp_path, lambda _: early + b"HTTP/1.1 204 No Content\r\n\r\n") as (pools, _, _used):
        assert await ask(pools) == (204, b"")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
    ],
)
async def test_a_connection_that_ends_is_not_used_again(tmp_path: Path, answer: bytes) -> None:
    async with server(tmp_path, lambda _: answer) as (pools, _, used):
        assert await ask(pools) == (200, b"x")
        if b"close" not in answer:
            async with pools.request(
                "unary", "POST", "http://tower/", headers=(), content=b"", read_seconds=5.0
            ):
                pass  # the body was not read
            await ask(pools)
            assert used == [1, 1, 2]
        else:
            await ask(pools)
            assert used == [1, 2]


async def test_an_idle_connection_that_the_server_closed_is_replaced(tmp_path: Path) -> None:
    async with server(tmp_path, lambda _: plain(b"x"), last=True) as (pools, _, used):
        assert await ask(pools) == (200, b"x")
        while not pools._local._kept[asyncio.get_running_loop()].idle._connections[0]._reader.at_eof():  # type: ignore[union-attr]
            await asyncio.sleep(0)
        assert await ask(pools) == (200, b"x")
        assert used == [1, 2]


async def test_a_body_in_pieces(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    async with server(tmp_path, lambda _: plain(b"")) as (pools, heads, _):
        assert await ask(pools, content=pieces(), headers=((b"content-length", b"3"),)) == (200, b"")
        assert heads[0].endswith(b"\r\n\r\nabc")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_whole_answer_is_an_error_of_the_protocol(
    tmp_path: Path, answer: bytes | None
) -> None:
    async with server(tmp_path, lambda _: answer, last=True) as (pools, _, _used):
        with pytest.raises(httpcore.RemoteProtocolError):
            await ask(pools)


async def test_an_answer_that_does_not_come_in_time(tmp_path: Path) -> None:
    async with server(tmp_path, lambda _: b"HTTP/1.1 200 OK\r\n") as (pools, _, _used):
        with pytest.raises(httpcore.ReadTimeout):
            await ask(pools, seconds=0.02)


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(httpcore.ConnectError):
        await ask(Pools(uds=str(tmp_path / "agent")))


@pytest.mark.parametrize(
    "header",
    [(b"x-a", b"1\r\nx-b: 2"), (b"x-a\r\nx-b", b"1"), (b"", b"1"), (b"x a", b"1"), (b"x-a", b"1\0")],
)
async def test_a_header_is_one_line(tmp_path: Path, header: tuple[bytes, bytes]) -> None:
    async with server(tmp_path, lambda _: plain(b"")) as (pools, heads, _):
        with pytest.raises(httpcore.LocalProtocolError):
            await ask(pools, headers=(header,))
        assert heads == []


def test_the_end_of_a_loop_closes_its_connections(tmp_path: Path) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(plain(b""))
            writer.close()

        async with await asyncio.start_unix_server(serve, tmp_path / "agent"):
            await ask(Pools(uds=str(tmp_path / "agent")), content=b"")

    asyncio.run(main())  # a connection left open would be a ResourceWarning, which is an error here
