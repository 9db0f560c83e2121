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
    facts = json.loads(os.environ.get("FLYTE_ATTEMPT_FACTS") or "{}")
    folder = _folder(facts.get("secrets", "")) if any(each["file"] for each in given) else ""
    for each in given:
        value = base64.b64decode(each["value"])
        if each["file"]:
            path = os.path.join(folder, each["name"])
            _write(path, value)
            value = os.fsencode(path)
        if not each["variable"]:
            continue
        if b"\0" in value:
            raise _Refused(f"The secret {each['name']} cannot be in a variable: it has a NUL byte.")
        os.environ[each["variable"]] = os.fsdecode(value)
    if folder:
        os.environ["FLYTE_SECRETS_DIR"] = folder


def _folder(place: str) -> str:
    """A new folder that only this process can look into: where Tower said, else in its own."""
    for folder in (place, os.path.join(os.getcwd(), ".secrets")):
        try:
            os.mkdir(folder, 0o700)
        except OSError:
            continue
        return folder
    raise _Refused("There is no place for the files of secrets.")


def _write(path: str, value: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(value)


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
