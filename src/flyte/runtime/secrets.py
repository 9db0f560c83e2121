"""The secrets that this process declared, asked for at its start over the agent's socket.

They are not in the environment that the process is started with, so `/proc/PID/environ` does not show them;
what the process itself starts inherits them, as it does every variable. Files lie in memory where the machine
has a place for that, and the platform removes them at the end.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flyte import _config
from flyte.errors import RemoteNotFoundError, RemoteSecretNotFoundError, ServerError
from flyte.transport import workload
from flyte.transport.credentials import Workload
from flyte.transport.session import Session

FOLDER = "FLYTE_SECRETS_DIR"
_PATH = "/api/v1/workload/secrets"


def enter(env: Mapping[str, str], *, directory: Path) -> None:
    """Put the declared secrets where they were declared to be; nothing happens where there are none.

    `env` is what the process was started with, `directory` its own. Raises RemoteSecretNotFoundError naming
    a secret that this process does not get, and other errors of the SDK.
    """
    facts = json.loads(env.get("FLYTE_ATTEMPT_FACTS") or "{}")
    place = facts.get("secrets")
    if not place:
        return
    given = _ask(facts.get("ticket", ""))
    files = [each for each in given if each["file"]]
    folder = _folder(Path(place), directory) if files else None
    for each in given:
        value = base64.b64decode(each["value"])
        if folder is not None and each["file"]:
            _write(folder / each["name"], value)
        if each["variable"]:
            os.environ[each["variable"]] = (
                str(folder / each["name"])
                if folder is not None and each["file"]
                else _text(each["name"], value)
            )
    if folder is not None:
        os.environ[FOLDER] = str(folder)


def _ask(ticket: str) -> list[dict[str, Any]]:
    agent = workload.find()
    if agent is None:
        raise ServerError("This process has secrets to ask for and nobody to ask.")
    settings = _config.resolve(endpoint=agent.endpoint.url, insecure=agent.endpoint.scheme == "http")
    session = Session(settings, Workload(agent.name), socket=agent.path)

    async def ask() -> Any:
        try:
            return await session.json("POST", _PATH, {"ticket": ticket}, idempotent=not ticket)
        finally:
            await session.aclose()

    # a loop made by hand touches no policy and is nobody's current one: the code finds all that unused
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        try:
            answer = runner.run(ask())
        except RemoteNotFoundError as error:
            raise RemoteSecretNotFoundError(error.message, hint=error.hint) from None
    found: list[dict[str, Any]] = answer["secrets"]
    return found


def _folder(place: Path, directory: Path) -> Path:
    """A new folder that only this process can look into: where the platform said, else in its own."""
    for folder in (place, directory / ".secrets"):
        try:
            folder.mkdir(mode=0o700)
        except OSError:
            continue
        return folder
    raise ServerError("There is no place for the files of secrets.")


def _write(path: Path, value: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(value)


def _text(name: str, value: bytes) -> str:
    """A variable as the operating system has it: any bytes but NUL."""
    if b"\0" in value:
        raise RemoteSecretNotFoundError(
            f"The secret {name} cannot be in a variable: it has a NUL byte.",
            hint="Declare it with mount=True.",
        )
    return os.fsdecode(value)
