"""Run by the official SDK inside a task: prints a run token, which the socket gives this attempt alone.

    python -I -S tower-token

Only the standard library is used, and little of it: it is started for each client that the SDK makes. The
socket is named by FLYTE_AGENT_SOCKET; who asks is told by the kernel. Nothing is kept, and nothing is written
but the token, into the pipe of the program that asked.
"""

from __future__ import annotations

import os
import socket
import sys

_REQUEST = (
    b"POST /agent/token HTTP/1.1\r\nhost: tower\r\nx-flyte-agent: 1\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)
_SECONDS = 20.0


def main() -> int:
    """Print the token. Answers 1, with a sentence on standard error, when there is none."""
    path = os.environ.get("FLYTE_AGENT_SOCKET", "")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(path)
            connection.sendall(_REQUEST)
            chunks = []
            while chunk := connection.recv(65536):
                chunks.append(chunk)
    except OSError as error:
        sys.stderr.write(f"the agent does not answer: {error.strerror or error}\n")
        return 1
    head, _, body = b"".join(chunks).partition(b"\r\n\r\n")
    text = body.decode("utf-8", "replace").strip()
    if head.split(b" ", 2)[1:2] != [b"200"] or not text:
        sys.stderr.write(f"the agent gave no token: {text}\n")
        return 1
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
