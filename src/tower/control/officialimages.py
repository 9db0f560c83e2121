"""Images of the official SDK as environments: what a name says, and the name for what layers say.

An image that was made here is its own description, `tower://image/py3.11-v2.12.1?pip=numpy`: nothing
has to be kept for it, and the same layers have the same name.
"""

from __future__ import annotations

import io
import re
import zlib
from itertools import islice
from urllib.parse import parse_qsl, urlencode

from flyteidl2.imagebuilder import definition_pb2
from google.protobuf.message import DecodeError

from tower.control import archives
from tower.errors import Exhausted, Invalid, Unsupported
from tower.images.port import ImageSpec

MADE_HERE = "tower://image/"
MAX_NAME = 64 * 1024
MAX_SPEC = 1024 * 1024
MAX_CONTEXT = 16 * 1024 * 1024
_MAX_FILE = 256 * 1024
_MAX_UNPACKED = 64 * 1024 * 1024
_MOST_FILES = 20_000
_MOST_LAYERS = 100
_RELEASE = r"2(?:\.\d{1,4}){2}(?:(?:a|b|rc|\.dev|\.post)\d{1,4})?"
_SDK = re.compile(_RELEASE)
_BASE = re.compile(rf"(?:ghcr\.io/flyteorg/flyte:|{re.escape(MADE_HERE)})py(3\.\d{{1,2}})-v({_RELEASE})")
_HINT = (
    "Leave the image out, or start from Image.from_debian_base() and have it made here: set image.builder to "
    "'remote' in the SDK's configuration, or FLYTE_IMAGE_BUILDER=remote."
)


def environment(name: str, *, sdk: str) -> ImageSpec:
    """The environment for an image by its name, with the SDK at the version `sdk` of the client.

    Raises Unsupported for an image that cannot be made here, Invalid for a malformed name.
    """
    if not _SDK.fullmatch(sdk):
        raise Unsupported(
            f"This task comes from the SDK 'flyte' at version {sdk[:40]!r}, which cannot be hosted.",
            hint="Use a released version of flyte 2.",
        )
    base, _, query = name.partition("?")
    found = _BASE.fullmatch(base)
    if found is None or (query and not name.startswith(MADE_HERE)) or len(name) > MAX_NAME:
        raise Unsupported(
            f"The image {name[:200]!r} cannot be used here: this Tower has no container engine.", hint=_HINT
        )
    parts: dict[str, list[str]] = {"pip": [], "apt": [], "env": []}
    try:
        for key, value in parse_qsl(query, strict_parsing=True) if query else ():
            parts[key].append(value)
    except (KeyError, ValueError) as error:
        raise Invalid("The name of the image cannot be read.", hint="Have the image made again.") from error
    return ImageSpec(
        python=found[1],
        sdk=f"flyte=={sdk}",
        pip_packages=tuple(parts["pip"]),
        apt_packages=tuple(parts["apt"]),
        env_vars=dict(value.split("=", 1) for value in parts["env"] if "=" in value),
    )


def described(data: bytes, context: bytes) -> str:
    """The name of the image that a serialised `flyteidl2.imagebuilder.ImageSpec` describes.

    `context` is the archive of the files that it speaks of. Raises Unsupported, Invalid, Exhausted.
    """
    try:
        spec = definition_pb2.ImageSpec.FromString(data)
    except DecodeError as error:
        raise Invalid("The description of the image cannot be read.") from error
    if not _BASE.fullmatch(spec.base_image.partition("?")[0]):
        raise Unsupported(
            f"An image cannot start from {spec.base_image[:200]!r} here: this Tower has no container engine.",
            hint="Start from Image.from_debian_base() of a released SDK.",
        )
    base, _, query = spec.base_image.partition("?")
    parts = parse_qsl(query)
    if len(spec.layers) > _MOST_LAYERS:
        raise Exhausted(f"An image has at most {_MOST_LAYERS} layers.")
    for layer in spec.layers:
        parts += _layer(layer, context)
    name = str(base).replace("ghcr.io/flyteorg/flyte:", MADE_HERE)
    if parts:
        name += "?" + urlencode(parts)
    if len(name) > MAX_NAME:
        raise Exhausted("The image names too much.", hint="Name only what the task imports.")
    return name


def release_of(name: str) -> str:
    """The version of the SDK in an image made here."""
    found = _BASE.fullmatch(name.partition("?")[0])
    assert found is not None
    return found[2]


def _layer(layer: definition_pb2.Layer, context: bytes) -> list[tuple[str, str]]:
    kind = layer.WhichOneof("layer")
    inner = getattr(layer, kind) if kind else None
    if inner is None or kind not in {"pip_packages", "requirements", "apt_packages", "env"}:
        raise Unsupported(
            f"An image cannot have the layer {kind or 'without a name'} here.",
            hint="Environments have Python packages, requirements files and variables.",
        )
    if getattr(inner, "secret_mounts", ()):
        raise Unsupported("Secrets while an image is made are not offered by this Tower.")
    options = getattr(inner, "options", None)
    if options is not None and (options.index_url or options.extra_index_urls or options.extra_args):
        raise Unsupported(
            "An image cannot choose its package index or options for the installer here.",
            hint="The operator of Tower sets the index for everybody: UV_DEFAULT_INDEX.",
        )
    if options is not None and options.pre:
        raise Unsupported("Pre-releases are installed where their exact version is named.")
    match kind:
        case "apt_packages":
            return [("apt", package) for package in inner.packages]
        case "env":
            return [("env", f"{key}={value}") for key, value in sorted(inner.env_variables.items())]
        case "requirements":
            return [("pip", line) for line in _lines(context, inner.file)]
        case _:
            return [("pip", package) for package in inner.packages]


def _lines(context: bytes, name: str) -> list[str]:
    """The requirements in a file of the archive, without remarks."""
    try:
        unpacked = zlib.decompressobj(wbits=31).decompress(context, _MAX_UNPACKED)
        with archives.opened(io.BytesIO(unpacked), "r|") as archive:
            few = islice(archive, _MOST_FILES)
            member = next(each for each in few if each.isreg() and each.name.removeprefix("./") == name)
            file = archive.extractfile(member)
            text = b"" if file is None else file.read(_MAX_FILE + 1)
    except (*archives.UNREADABLE, zlib.error, StopIteration) as error:
        raise Invalid(f"There is no file {name[:100]!r} with the image.") from error
    if len(text) > _MAX_FILE:
        raise Exhausted("The requirements file is too long.")
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.decode("utf-8", "replace").splitlines())
    return [line for line in lines if line]
