"""The making of an image as a run: its description was uploaded, its environment is made here and now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from flyteidl2.task import common_pb2

from tower.control import officialimages, specs
from tower.control.inputs import parse
from tower.errors import Invalid, NotFound
from tower.images.port import Builder


class Blobs(Protocol):
    """Where uploads lie; `tower.store.blobs.Blobs` is one."""

    async def get(self, key: str, /, *, limit: int) -> bytes:
        """A content."""


async def make(
    inputs: bytes,
    *,
    project: str,
    domain: str,
    blobs: Blobs,
    images: Builder,
    say: Callable[[str], None],
) -> bytes:
    """Make what the inputs of the run describe; answers its outputs, the name of the image. Raises Fault.

    Only what was uploaded to the run's own project and domain is read.
    """
    given = {each.name: each.value.scalar.primitive.string_value for each in parse(inputs).literals}

    async def read(name: str, limit: int) -> bytes:
        uri = given.get(name, "")
        if not uri:
            return b""
        try:
            return await blobs.get(specs.bundle_key(uri, project=project, domain=domain), limit=limit)
        except NotFound as error:
            raise Invalid("The description of the image was not uploaded.") from error

    description = await read("spec", officialimages.MAX_SPEC)
    context = await read("context", officialimages.MAX_CONTEXT)
    name = await asyncio.to_thread(officialimages.described, description, context)
    spec = officialimages.environment(name, sdk=officialimages.release_of(name))
    await images.ready(spec, progress=say)
    outputs = common_pb2.Outputs()
    literal = outputs.literals.add(name="o0")
    literal.value.scalar.primitive.string_value = name
    data: bytes = outputs.SerializeToString()
    return data
