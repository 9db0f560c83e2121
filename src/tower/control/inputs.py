"""The inputs of runs: small ones in the run's own row, one commit for both; larger ones as blobs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from flyteidl2.task import common_pb2
from google.protobuf.message import DecodeError

from tower.errors import Broken, Exhausted, Invalid, NotFound
from tower.store import blobs as naming
from tower.store.blobs import Blobs
from tower.store.runs import ActionRow

INLINE = 16 * 1024
"""Up to this many bytes stay in the row."""

FILE = "inputs.pb"


@dataclass(frozen=True, slots=True)
class Kept:
    """Where inputs are kept: URI of their directory, SHA-256, and the bytes that go into the row."""

    uri: str
    digest: str
    inline: bytes | None


class Inputs:
    """Keeps and finds inputs. Their URI is `tower://inputs/<project>/<domain>/<sha256>`, a directory."""

    def __init__(self, *, blobs: Blobs, limit: int) -> None:
        self._blobs = blobs
        self._limit = limit

    async def keep(self, project: str, domain: str, data: bytes, *, as_blob: bool = False) -> Kept:
        """Keep serialised inputs. Raises Exhausted for too many bytes."""
        if len(data) > self._limit:
            raise Exhausted(f"The inputs are larger than {self._limit} bytes.")
        digest = hashlib.sha256(data).hexdigest()
        place = f"inputs/{project}/{domain}"
        if len(data) > INLINE or as_blob:
            await self._blobs.put_content(place, data, suffix=f"/{FILE}")
            return Kept(f"{naming.SCHEME}{place}/{digest}", digest, None)
        return Kept(f"{naming.SCHEME}{place}/{digest}", digest, data)

    async def read(self, row: ActionRow) -> bytes:
        """The serialised inputs of an action. Raises Broken when they are gone."""
        if row.inputs is not None:
            return row.inputs
        try:
            return await self._blobs.get(f"{naming.parse_uri(row.inputs_uri)}/{FILE}", limit=self._limit)
        except NotFound as error:
            raise Broken("The inputs of a run are gone.", cause=row.inputs_uri) from error

    async def publish(self, row: ActionRow) -> str:
        """The URI of an action's inputs, with the content there: small ones leave their row only now."""
        if row.inputs is not None:
            await self._blobs.put_content(
                naming.parse_uri(row.inputs_uri).rpartition("/")[0], row.inputs, suffix=f"/{FILE}"
            )
        return row.inputs_uri

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
