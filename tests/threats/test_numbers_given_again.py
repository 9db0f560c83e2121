"""T8: a process that the kernel gives the number of an attempt's process is a stranger to its agent."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from tests.tower.agent.test_agent_sockets import CALL, Name, Script, who

from tower.agent import AgentSockets

AGAIN = """
import ctypes, errno, os, struct, sys
number, path, code = int(sys.argv[1]), sys.argv[2], sys.argv[3]
libc = ctypes.PyDLL(None, use_errno=True)
wanted = (ctypes.c_int * 1)(number)
asked = ctypes.create_string_buffer(
    struct.pack("11Q", 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(wanted), 1, 0), 88
)
made = libc.syscall(435, asked, ctypes.c_size_t(88))  # clone3, with set_tid
if made == 0:
    os.execv(sys.executable, [sys.executable, "-c", code, path])
if made < 0:
    print("refused", errno.errorcode[ctypes.get_errno()])
else:
    os.waitpid(made, 0)
"""
STRANGER = f"""{CALL}
import os, subprocess
print(os.getpid(), call(sys.argv[1])[:3], flush=True)
print(os.getpid(), subprocess.run(
    [sys.executable, "-c", {CALL!r} + "print(call(sys.argv[1])[:3])", sys.argv[1]],
    capture_output=True, text=True).stdout.strip())
"""


async def given_again(number: int, path: Path) -> list[str]:
    """What a new process of this number, and its child, are answered."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AGAIN, str(number), str(path), STRANGER), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().splitlines()


async def test_t08_the_number_of_a_process_is_not_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir(mode=0o700)
    path = folder / "s"
    sockets = AgentSockets(who, name=Name, patience=30)
    await sockets.open("attempt", "attempt", path)
    task = await Script.started()
    try:
        sockets.register("attempt", task.pid)
        assert (await task.ask(f"call({str(path)!r})")).startswith("200")
        await task.end()
        told = await given_again(task.pid, path)
        if told and told[0].startswith("refused"):
            pytest.skip(f"this machine gives no number on request: {told[0]}")
        assert told == [f"{task.pid} 403", f"{task.pid} 403"]
    finally:
        await task.end()
        await sockets.close_all()
