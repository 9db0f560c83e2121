"""Bundles, inputs, outputs and logs on their way in and out. A signed URL is a capability for one object."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from flyteidl2.task import common_pb2
from google.protobuf.message import DecodeError

from tower.audit import Event
from tower.control import specs
from tower.control.access import Access, not_found
from tower.control.definitions import Definitions
from tower.control.grants import Download, Grants, Upload, actors_to_text
from tower.control.inputs import Inputs, Kept, parse
from tower.control.projects import Projects
from tower.control.tasks import resource as task_resource
from tower.control.watching import Seen, Watching
from tower.errors import AlreadyExists, Broken, Denied, Exhausted, Invalid, NotFound
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.settings import Settings
from tower.states import Phase
from tower.store import blobs as naming
from tower.store.blobs import Blobs
from tower.store.database import Database
from tower.store.definitions import TaskKey
from tower.store.runs import ActionKey

DEFAULT_LIFE = 900.0
MAX_LIFE = 3600.0
MAX_OUTPUTS = 64 * 1024 * 1024
REPORT = "report.html"
_FILENAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,149}")
_SHA256_NAME = re.compile(r"([0-9a-f]{64})\.tar\.gz")


@dataclass(frozen=True, slots=True)
class UploadPlace:
    """Where to put a file: the path of the URL, the URI to refer to it by, when the URL ends."""

    path: str
    uri: str
    ends_at: float


@dataclass(frozen=True, slots=True)
class ActionData:
    """What went into an action and what came out."""

    inputs: common_pb2.Inputs
    outputs: common_pb2.Outputs
    inputs_uri: str
    outputs_uri: str


class Data:
    """The use-cases of the data proxy, and of the two routes that its URLs lead to."""

    def __init__(
        self,
        *,
        db: Database,
        access: Access,
        blobs: Blobs,
        grants: Grants,
        inputs: Inputs,
        definitions: Definitions,
        projects: Projects,
        watching: Watching,
        settings: Settings,
    ) -> None:
        self._db = db
        self._access = access
        self._blobs = blobs
        self._grants = grants
        self._inputs = inputs
        self._definitions = definitions
        self._projects = projects
        self._watching = watching
        self._settings = settings
        self._busy: dict[str, tuple[asyncio.Lock, int]] = {}

    async def upload_place(
        self,
        principal: Principal,
        *,
        project: str,
        domain: str,
        filename: str,
        md5: bytes,
        length: int,
        life: float,
        request_id: str,
    ) -> UploadPlace:
        """A URL for one upload of one content. `length` 0 is unknown, `life` 0 the usual one (seconds)."""
        specs.scope(project, domain)
        place = Resource(ResourceType.DOMAIN, project=project, domain=domain)
        decision = await self._access.require(
            principal, Action.DATA_UPLOAD, place, request_id=request_id, view=Action.TASK_VIEW
        )
        self._projects.open_for_work(project)
        if not _FILENAME.fullmatch(filename) or ".." in filename:
            raise Invalid(
                "The filename is missing or holds other characters than letters, digits and '_.+-'."
            )
        if len(md5) != 16:
            raise Invalid("The content_md5 is missing: 16 bytes, the MD5 digest of the file.")
        if not 0 <= length <= self._settings.max_upload:
            raise Exhausted(f"An upload has at most {self._settings.max_upload} bytes.")
        key = f"bundles/{project}/{domain}/{md5.hex()}/{filename}"
        upload = Upload(
            project=project,
            domain=domain,
            key=key,
            md5=md5.hex(),
            length=length or self._settings.max_upload,
            subject=principal.subject,
            kind=principal.credential.kind.value,
            credential=principal.credential.root,
            actors=actors_to_text(principal.actors),
        )
        ticket, ends_at = self._grants.allow_upload(upload, life=_life(life))
        await self._db.write(
            lambda tx: self._access.record(
                tx,
                principal,
                decision,
                event=Event.UPLOAD_CREATE,
                request_id=request_id,
                detail={"key": key, "length": length},
            )
        )
        return UploadPlace(f"/data/upload/{ticket}", naming.uri(key), ends_at)

    async def receive(
        self,
        ticket: str,
        chunks: AsyncIterable[bytes],
        *,
        content_md5: bytes | None,
        length: int | None,
        request_id: str,
    ) -> None:
        """Store what a ticket allows, for as long as the account of who asked for it is not disabled.

        What was stored once is never replaced. Raises Denied for a bad ticket, or one of such an account,
        Invalid for a content of another MD5, Exhausted for too many bytes, AlreadyExists where another
        content of the same MD5 is stored.
        """
        upload = self._grants.open_upload(ticket)
        await self._account_on(upload, request_id=request_id)
        chunks = self._while_account_on(upload, chunks, request_id=request_id)
        md5 = bytes.fromhex(upload.md5)
        if content_md5 is not None and not hmac.compare_digest(content_md5, md5):
            raise Invalid("The Content-MD5 is not the one that this URL was made for.")
        if length is not None and length > upload.length:
            raise Exhausted(f"The upload is larger than {upload.length} bytes.")
        async with self._only(upload.key):
            if await self._blobs.exists(upload.key):
                await self._compare(upload, chunks)
                return
            stored = await self._blobs.put_stream(
                upload.key, chunks, limit=upload.length, md5=md5, size=length
            )
            named = _SHA256_NAME.fullmatch(upload.key.rpartition("/")[2])
            if named is not None and not hmac.compare_digest(stored.sha256.hex(), named[1]):
                await self._blobs.delete(upload.key)
                raise Invalid("The file is named by a SHA-256 digest that is not its own.")

    async def gave_up(self, ticket: str, *, size: int, request_id: str) -> None:
        """Record an upload whose client left after `size` bytes of it, as the call of who asked for it."""
        try:
            upload = self._grants.open_upload(ticket)
        except Denied:
            return  # it ended meanwhile
        if not upload.subject:
            return
        await self._access.gave_up(
            upload.asker,
            Action.DATA_UPLOAD,
            resource=upload.place,
            request_id=request_id,
            detail={**_put(upload), "bytes": str(size)},
        )

    async def send(self, ticket: str) -> tuple[str, int, AsyncIterator[bytes]]:
        """Name, size and content of what a ticket allows. Raises Denied, NotFound."""
        download = self._grants.open_download(ticket)
        size = await self._blobs.size(download.key)
        if size is None:
            raise NotFound("There is no such file.")
        return download.key.rpartition("/")[2], size, self._blobs.stream(download.key)

    async def upload_inputs(
        self,
        principal: Principal,
        inputs: common_pb2.Inputs,
        *,
        project: str,
        domain: str,
        task: TaskKey | None,
        version: str,
        request_id: str,
    ) -> Kept:
        """Keep the inputs of a run to come, completed for `task` where one is named ("" is the latest)."""
        specs.scope(project, domain)
        place = Resource(ResourceType.DOMAIN, project=project, domain=domain)
        await self._access.require(
            principal, Action.DATA_UPLOAD, place, request_id=request_id, view=Action.TASK_VIEW
        )
        self._projects.open_for_work(project)
        if task is not None:
            await self._access.require(
                principal, Action.TASK_VIEW, task_resource(task), request_id=request_id
            )
            definition = self._definitions.find(task, version)
            if definition is None:
                raise not_found(task_resource(task))
            inputs = definition.interface.bind(inputs)
        data = inputs.SerializeToString(deterministic=True)
        kept = await self._inputs.keep(project, domain, data, by=principal)
        if kept.content.data is not None:
            await self._db.write(lambda tx: self._inputs.store(tx, kept), simple=True)
        return kept

    async def action_data(self, principal: Principal, key: ActionKey, *, request_id: str) -> ActionData:
        """Inputs, and outputs once the action has succeeded. Raises NotFound."""
        seen = await self._watching.get(principal, key, request_id=request_id)
        return ActionData(
            inputs=parse(await self._inputs.read(seen.row)),
            outputs=await self._outputs(seen),
            inputs_uri=seen.row.inputs_uri,
            outputs_uri=seen.row.outputs_uri,
        )

    async def action_uris(self, principal: Principal, key: ActionKey, *, request_id: str) -> tuple[str, str]:
        """The URIs of inputs and outputs ("" where there are none), for readers of blobs."""
        seen = await self._watching.get(principal, key, request_id=request_id)
        return seen.row.inputs_uri, seen.row.outputs_uri

    async def code_link(
        self,
        principal: Principal,
        *,
        key: ActionKey | None = None,
        task: TaskKey | None = None,
        version: str = "",
        life: float,
        request_id: str,
    ) -> tuple[str, float]:
        """The path of a URL to the code bundle of an action or a task version, and when it ends."""
        run: Resource | None = None
        if key is not None:
            seen = await self._watching.get(principal, key, request_id=request_id)
            spec, run = seen.spec, self._watching.place(seen.row)
        else:
            assert task is not None
            await self._access.require(
                principal, Action.TASK_VIEW, task_resource(task), request_id=request_id
            )
            definition = self._definitions.find(task, version)
            if definition is None:
                raise not_found(task_resource(task))
            spec = definition.spec
        bundle = "" if spec is None else spec.task_template.metadata.code_bundle_uri
        if not bundle:
            raise NotFound("There is no code bundle: the code is part of the image.")
        blob = naming.parse_uri(bundle)
        return await self._link(principal, blob, run=run, life=life, request_id=request_id)

    async def report_link(
        self, principal: Principal, key: ActionKey, *, attempt: int, life: float, request_id: str
    ) -> tuple[str, float]:
        """The path of a URL to the report that an attempt wrote, and when it ends."""
        seen = await self._watching.get(principal, key, request_id=request_id)
        uris = [each.outputs_uri for each in seen.attempts if each.attempt == attempt or not attempt]
        if not uris or not uris[-1]:
            raise NotFound("There is no report.")
        blob = f"{naming.parse_uri(uris[-1])}/{REPORT}"
        if not await self._blobs.exists(blob):
            raise NotFound("There is no report.")
        run = self._watching.place(seen.row)
        return await self._link(principal, blob, run=run, life=life, request_id=request_id)

    async def _link(
        self,
        principal: Principal,
        blob: str,
        *,
        run: Resource | None = None,
        life: float,
        request_id: str,
    ) -> tuple[str, float]:
        """A link to a blob, for who sees the runs of its place, or the one run that it belongs to."""
        _, project, domain, *_ = blob.split("/")
        place = Resource(ResourceType.DOMAIN, project=project, domain=domain)
        if run is not None and (run.project, run.domain) == (project, domain):
            place = run
        decision = await self._access.require(
            principal, Action.RUN_VIEW, place, request_id=request_id, view=Action.RUN_VIEW
        )
        ticket, ends_at = self._grants.allow_download(
            Download(project=project, domain=domain, key=blob), life=_life(life)
        )
        await self._db.write(
            lambda tx: self._access.record(
                tx,
                principal,
                decision,
                event=Event.DOWNLOAD_CREATE,
                request_id=request_id,
                detail={"key": blob},
            )
        )
        return f"/data/download/{ticket}", ends_at

    async def _outputs(self, seen: Seen) -> common_pb2.Outputs:
        row = seen.row
        if row.phase is not Phase.SUCCEEDED or not row.outputs_uri:
            return common_pb2.Outputs()
        try:
            data = await self._blobs.get(row.outputs_key, limit=MAX_OUTPUTS)
            outputs: common_pb2.Outputs = common_pb2.Outputs.FromString(data)
        except NotFound:
            return common_pb2.Outputs()
        except DecodeError as error:
            raise Broken(
                "The outputs of a run cannot be read.", cause=f"{row.outputs_key}: {error}"
            ) from error
        return outputs

    async def _account_on(self, upload: Upload, *, request_id: str) -> None:
        """Refuse the upload of somebody whose account is disabled by now, on record. Raises Denied."""
        if not upload.subject:
            return
        asker = upload.asker
        decision = await self._access.account_off(asker, Action.DATA_UPLOAD, upload.place)
        if decision is not None:
            await self._access.refuse(asker, decision, request_id=request_id, detail=_put(upload))
            raise Denied("The link does not hold.", hint="Ask for a new one.", cause="account-disabled")

    async def _while_account_on(
        self, upload: Upload, chunks: AsyncIterable[bytes], *, request_id: str
    ) -> AsyncIterator[bytes]:
        """An upload may take long; it ends where the account does."""
        async for chunk in chunks:
            await self._account_on(upload, request_id=request_id)
            yield chunk

    async def _compare(self, upload: Upload, chunks: AsyncIterable[bytes]) -> None:
        """Read an upload of what is there already; MD5 alone does not make two files the same."""
        size = 0
        arriving = hashlib.sha256()
        async for chunk in chunks:
            size += len(chunk)
            if size > upload.length:
                raise Exhausted(f"The upload is larger than {upload.length} bytes.")
            arriving.update(chunk)
        stored = hashlib.sha256()
        async for chunk in self._blobs.stream(upload.key):
            stored.update(chunk)
        if not hmac.compare_digest(arriving.digest(), stored.digest()):
            raise AlreadyExists("Another content is stored under this name.", hint="Change the file's name.")

    @asynccontextmanager
    async def _only(self, key: str) -> AsyncIterator[None]:
        """One upload of a key at a time."""
        lock, users = self._busy.get(key, (asyncio.Lock(), 0))
        self._busy[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            users = self._busy[key][1] - 1
            if users:
                self._busy[key] = (lock, users)
            else:
                del self._busy[key]


def _life(asked: float) -> float:
    return min(asked, MAX_LIFE) if asked > 0 else DEFAULT_LIFE


def _put(upload: Upload) -> dict[str, str]:
    return {"method": "PUT /data/upload/{ticket}", "key": upload.key}
