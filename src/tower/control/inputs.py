"""The inputs of runs: checked for their size, kept in the blob store under their digest, found again."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from flyteidl2.task import common_pb2
from google.protobuf.message import DecodeError

from tower.control.redaction import Redaction
from tower.control.waiting import attempt_of
from tower.errors import Broken, Exhausted, Invalid, NotFound
from tower.identity.principal import Principal
from tower.store import blobs as naming
from tower.store.blobs import Blobs, Content
from tower.store.database import Transaction
from tower.store.runs import ActionRow

FILE = "inputs.pb"


class Kept(NamedTuple):
    """Where inputs are kept: URI of their directory, and the content, which `Inputs.store` completes."""

    uri: str
    content: Content

    @property
    def digest(self) -> str:
        """SHA-256 of the serialised inputs, in hexadecimal."""
        return self.content.digest


class Inputs:
    """Keeps and finds inputs. Their URI is `tower://inputs/<project>/<domain>/<sha256>`, a directory."""

    def __init__(self, *, blobs: Blobs, limit: int, redaction: Redaction | None = None) -> None:
        """`redaction` knows what running tasks were given in confidence."""
        self._redaction = redaction or Redaction()
        self._blobs = blobs
        self._limit = limit

    async def keep(self, project: str, domain: str, data: bytes, *, by: Principal | None = None) -> Kept:
        """Keep serialised inputs; small ones only with `store`. Raises Exhausted for too many bytes.

        Raises Invalid when they come from a running task, `by`, and hold a secret that it was given (T31).
        """
        asking = attempt_of(by) if by is not None and by.actors else None
        if asking is not None and await self._redaction.found(asking[1], data):
            raise Invalid("The inputs hold a secret.", hint="Declare it in the task that needs it.")
        if len(data) > self._limit:
            raise Exhausted(f"The inputs are larger than {self._limit} bytes.")
        place = f"inputs/{project}/{domain}"
        content = await self._blobs.take(place, data, suffix=f"/{FILE}")
        return Kept(f"{naming.SCHEME}{place}/{content.digest}", content)

    def store(self, tx: Transaction, kept: Kept) -> None:
        """Complete `keep` in the transaction of the row that refers to the inputs."""
        self._blobs.store(tx, kept.content)

    async def read(self, row: ActionRow) -> bytes:
        """The serialised inputs of an action. Raises Broken when they are gone."""
        try:
            return await self._blobs.get(row.inputs_key, limit=self._limit)
        except NotFound as error:
            raise Broken("The inputs of a run are gone.", cause=row.inputs_uri) from error

    async def uploaded(self, uri: str, *, project: str, domain: str) -> common_pb2.Inputs:
        """Inputs that were uploaded for this very project and domain. Raises Invalid."""
        place = f"{naming.SCHEME}inputs/{project}/{domain}/"
        digest = uri.removeprefix(place)
        if not uri.startswith(place) or len(digest) != 64 or "/" in digest:
            raise Invalid(
                "The uploaded inputs are not for this project and domain.", hint="Upload them again."
            )
        try:
            data = await self._blobs.get(f"{naming.parse_uri(uri)}/{FILE}", limit=self._limit)
        except NotFound as error:
            raise Invalid("The uploaded inputs are not there.", hint="Upload them again.") from error
        return parse(data)


def digest(bound: common_pb2.Inputs) -> str:
    """The digest that bound inputs are kept under."""
    return hashlib.sha256(bound.SerializeToString(deterministic=True)).hexdigest()


def parse(data: bytes) -> common_pb2.Inputs:
    """Stored inputs as a message. Raises Broken."""
    try:
        inputs: common_pb2.Inputs = common_pb2.Inputs.FromString(data)
    except DecodeError as error:
        raise Broken("The inputs of a run cannot be read.", cause=str(error)) from error
    return inputs
