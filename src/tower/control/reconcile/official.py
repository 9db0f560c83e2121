"""Tasks of the official SDK, hosted by its own runtime: what that is started with. Nothing of it is secret.

Its runtime reads inputs from a file, leaves outputs or an error beside it, unpacks the code bundle into its
working directory and gets its credential from a command. All of it lies in one folder of the attempt's room.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from flyteidl2.core import security_pb2
from flyteidl2.task import common_pb2, task_definition_pb2

from tower.control.inputs import parse
from tower.control.officialspecs import BUNDLES, PROGRAM
from tower.control.rawdata import RawData
from tower.control.reconcile.plan import Ground
from tower.errors import Invalid, Precondition
from tower.executors.port import TaskJob
from tower.images.port import ASK_COMMAND
from tower.store.runs import ActionRow

FOLDER = ".tower"
"""In the working directory: what Tower and the runtime hand each other."""

MOUNT = "/etc/flyte/secrets"
"""The one place for files of secrets that its tasks can name."""

_PLACEHOLDER = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
_LOCAL = {"localhost": "127.0.0.1"}
_PLAIN = ("localhost", "docker")
"""Its client goes over to plain HTTP for every name that has one of these in it."""


class Bundles(Protocol):
    """Finds code bundles; `tower.control.reconcile.bundles.Bundles` does."""

    async def file(self, uri: str, digest: str, /) -> Path:
        """The bundle as it was uploaded."""


async def prepare(
    job: TaskJob,
    spec: task_definition_pb2.TaskSpec,
    *,
    row: ActionRow,
    ground: Ground,
    inputs: bytes,
    bundles: Bundles,
    rawdata: RawData,
) -> TaskJob:
    """The job with the runtime's program and environment, all that it reads being in place. Raises Fault."""
    folder = job.directory / FOLDER
    env = {**job.env, **environment(ground, python=job.python, folder=folder)}
    words = command(spec, python=job.python, folder=folder, row=row)
    folder.mkdir(mode=0o700)
    given = parse(inputs)
    await rawdata.given(given, folder=folder, attempt=job.id)
    inputs = given.SerializeToString(deterministic=True)
    code = None
    if name := bundle(spec):
        code = await bundles.file(spec.task_template.metadata.code_bundle_uri, row.code_digest), name
    await asyncio.to_thread(furnish, folder, inputs=inputs, ground=ground, code=code)
    return replace(job, command=words, env=env, links=links(spec, job))


def links(spec: task_definition_pb2.TaskSpec, job: TaskJob) -> Mapping[str, str]:
    """Where the SDK says that files of secrets are, for a task that declares some, and where they will be."""
    facts = json.loads(job.env.get("FLYTE_ATTEMPT_FACTS") or "{}")
    files = security_pb2.Secret.MountType.FILE
    declared = spec.task_template.security_context.secrets
    if not any(secret.mount_requirement == files for secret in declared):
        return {}
    return {MOUNT: facts["secrets"]}


async def results(data: bytes, job: TaskJob, *, row: ActionRow, rawdata: RawData) -> bytes:
    """Outputs as others may read them: the files that they name are kept. Raises Invalid, Exhausted."""
    outputs = common_pb2.Outputs.FromString(data)
    await rawdata.taken(outputs, folder=job.directory, run=row.key)
    kept: bytes = outputs.SerializeToString(deterministic=True)
    return kept


def bundle(spec: task_definition_pb2.TaskSpec) -> str:
    """The name of the code bundle's file in the folder, "" where there is none. Raises Invalid."""
    words = list(spec.task_template.container.args)
    names = [BUNDLES[word] for word in words if word in BUNDLES]
    if len(names) > 1 or bool(names) != bool(spec.task_template.metadata.code_bundle_uri):
        raise Invalid("The arguments of the task and its code bundle do not fit.", hint="Deploy it again.")
    return names[0] if names else ""


def command(
    spec: task_definition_pb2.TaskSpec, *, python: Path, folder: Path, row: ActionRow
) -> tuple[str, ...]:
    """The program to start: the declared arguments, with places in the folder for what they leave open."""
    values = {
        "input": str(folder / "inputs.pb"),
        "outputPrefix": str(folder),
        "rawOutputDataPrefix": str(folder / "raw"),
        "checkpointOutputPrefix": str(folder / "checkpoint"),
        "prevCheckpointPrefix": "",
        "runName": row.run,
        "actionName": row.action,
        "runStartTime": datetime.fromtimestamp(row.created_at, UTC).isoformat(),
    }
    words = [
        _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word)
        for word in spec.task_template.container.args
    ]
    for option, name in BUNDLES.items():
        if option in words[:-1]:
            words[words.index(option) + 1] = str(folder / name)
    program = (str(python.with_name(PROGRAM)), *words[1:])
    declared = spec.task_template.security_context.secrets
    return (*_ask(python), "start", *program) if declared else program


def _ask(python: Path) -> tuple[str, ...]:
    return str(python), "-I", "-S", str(python.with_name(ASK_COMMAND))


def environment(ground: Ground, *, python: Path, folder: Path) -> Mapping[str, str]:
    """What the runtime needs of its environment. Raises Precondition where Tower speaks no TLS.

    No credential is in it: the runtime asks the command, and that one the socket of the attempt.
    """
    endpoint = urlsplit(ground.endpoint)
    if endpoint.scheme != "https":
        raise Precondition(
            "Tasks of the SDK 'flyte' 2 are hosted over TLS only: its client sends no credential without.",
            hint="Start Tower with --tls, or deploy the task with the SDK of this project.",
        )
    host = (endpoint.hostname or "").lower()
    place = endpoint.netloc.replace(host, _LOCAL.get(host, host))
    if any(word in place for word in _PLAIN):
        raise Precondition(
            f"The SDK 'flyte' 2 would speak plain HTTP to {place}, for the sake of its name.",
            hint="Give Tower another name: --host or --public-url.",
        )
    own = {
        "_U_EP_OVERRIDE": urlunsplit(endpoint._replace(netloc=place)),
        "_U_RUN_BASE": str(folder / "run"),
        "FLYTE_AUTH_TYPE": "ExternalCommand",
        "FLYTE_AUTH_COMMAND": json.dumps([*_ask(python), "token"]),
        "FSSPEC_FILE": json.dumps({"auto_mkdir": True}),
    }
    if ground.trust is not None:
        own["SSL_CERT_FILE"] = str(folder / "trust.pem")
    return own


def furnish(folder: Path, *, inputs: bytes, ground: Ground, code: tuple[Path, str] | None) -> None:
    """Put inputs, certificates and the code bundle (its file, its name here) into a fresh folder."""
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "inputs.pb").write_bytes(inputs)
    if ground.trust is not None:
        shutil.copyfile(ground.trust, folder / "trust.pem")
    if code is not None:
        shutil.copyfile(code[0], folder / code[1])
