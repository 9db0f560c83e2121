"""Asks the agent for a process of the official SDK, which does not know it.

    python -I -S tower-ask token                        prints a run token, for the pipe of the SDK
    python -I -S tower-ask start PROGRAM ARGUMENT...    becomes the program, given the secrets it declared

Only the standard library is used, and little of it: a token is asked for by each client that the SDK makes.
The socket is named by FLYTE_AGENT_SOCKET; who asks is told by the kernel. Nothing is kept on a disk.
"""

from __future__ import annotations

import os
import socket
import sys

_SECONDS = 20.0
_CANNOT_START = 126
_FAILED = 120


class _Refused(Exception):
    """No answer that is of use; the text is for the log of the attempt."""


def main(words: list[str]) -> int:
    """Do what the words say. Answers an exit code, with a sentence on standard error when it is not 0."""
    try:
        if words == ["token"]:
            sys.stdout.write(_post("/agent/token", b"").decode().strip() + "\n")
            return 0
        if words[:1] == ["start"] and len(words) > 1:
            _enter_secrets()
            os.execv(words[1], words[1:])  # noqa: S606  (a list of arguments, no shell)
        raise _Refused("tower-ask: token, or start PROGRAM ARGUMENT...")
    except _Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return _FAILED
    except OSError as error:
        sys.stderr.write(f"{os.path.basename(words[-1])}: {error.strerror or error}\n")
        return _CANNOT_START


def _enter_secrets() -> None:
    import base64
    import json

    given = json.loads(_post("/api/v1/workload/secrets", b"{}"))["secrets"]
    for each in given:
        value = base64.b64decode(each["value"])
        if each["file"] or b"\0" in value:
            raise _Refused(f"The secret {each['name']} cannot be given in a variable.")
        os.environ[each["variable"]] = os.fsdecode(value)


def _post(path: str, body: bytes) -> bytes:
    request = (
        f"POST {path} HTTP/1.1\r\nhost: tower\r\nx-flyte-agent: 1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode() + body
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(os.environ.get("FLYTE_AGENT_SOCKET", ""))
            connection.sendall(request)
            chunks = []
            while chunk := connection.recv(65536):
                chunks.append(chunk)
    except OSError as error:
        raise _Refused(f"The agent does not answer: {error.strerror or error}") from error
    head, _, answer = b"".join(chunks).partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise _Refused(f"The agent refused: {answer.decode('utf-8', 'replace')[:2000]}")
    return answer


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
