"""What an attempt leaves behind: `outputs.pb` or `error.pb`, complete or not there at all."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from types import TracebackType

from flyteidl2.core import execution_pb2
from google.protobuf.message import Message

from flyte.errors import FlyteError, NonRecoverableError, RuntimeUserError

OUTPUTS = "outputs.pb"
ERROR = "error.pb"
MAX_MESSAGE = 32 * 1024

_SDK = str(Path(__file__).resolve().parents[1]) + os.sep
_OURS = (_SDK, os.sep.join(("", "asyncio", "")), "<frozen importlib", os.sep.join(("", "importlib", "")))


def write(directory: Path, name: str, message: Message) -> None:
    """Write a message as a file that appears whole. Raises OSError."""
    partial = directory / f".{name}.{os.getpid()}"
    partial.write_bytes(message.SerializeToString())
    partial.replace(directory / name)


def error_document(
    raised: BaseException, *, bundle: Path | None, recoverable: bool
) -> execution_pb2.ErrorDocument:
    """What a user's exception is to the platform: its class, its message and where it came from."""
    return _document(_code(raised), describe(raised, bundle=bundle), recoverable=recoverable)


def is_recoverable(raised: BaseException) -> bool:
    """Whether another attempt may help."""
    return not isinstance(raised, NonRecoverableError)


def describe(raised: BaseException, *, bundle: Path | None) -> str:
    """The exception in one line, then its traceback: user code only, by paths within the bundle."""
    headline = "".join(traceback.format_exception_only(raised)).strip()
    if isinstance(raised, FlyteError) and _frames(raised.__traceback__, bundle) == []:
        return _bounded(headline)
    report = traceback.TracebackException.from_exception(raised, max_group_depth=4)
    _trim(report, bundle, set())
    return _bounded(f"{headline}\n\n{''.join(report.format())}".rstrip())


def _document(code: str, message: str, *, recoverable: bool) -> execution_pb2.ErrorDocument:
    kind = (
        execution_pb2.ContainerError.RECOVERABLE
        if recoverable
        else execution_pb2.ContainerError.NON_RECOVERABLE
    )
    return execution_pb2.ErrorDocument(
        error=execution_pb2.ContainerError(
            code=code, message=message, kind=kind, origin=execution_pb2.ExecutionError.USER
        )
    )


def _code(raised: BaseException) -> str:
    """The code that a RuntimeUserError was given, else the name of the class."""
    if isinstance(raised, RuntimeUserError) and raised.code != raised.default_code:
        return raised.code[:128]
    return type(raised).__name__[:128]


def _bounded(text: str) -> str:
    """At most MAX_MESSAGE characters that UTF-8 can say: the beginning and the end."""
    text = text.encode(errors="backslashreplace").decode()
    if len(text) <= MAX_MESSAGE:
        return text
    return f"{text[: MAX_MESSAGE // 2]}\n…\n{text[-MAX_MESSAGE // 2 :]}"


def _trim(report: traceback.TracebackException, bundle: Path | None, seen: set[int]) -> None:
    if id(report) in seen:
        return
    seen.add(id(report))
    report.stack = traceback.StackSummary.from_list(_own(report.stack, bundle))
    for inner in (report.__cause__, report.__context__, *(report.exceptions or ())):
        if inner is not None:
            _trim(inner, bundle, seen)


def _frames(tail: TracebackType | None, bundle: Path | None) -> list[traceback.FrameSummary]:
    return _own(traceback.extract_tb(tail), bundle)


def _own(stack: traceback.StackSummary, bundle: Path | None) -> list[traceback.FrameSummary]:
    """The frames from the user's first one on, without ours, and by paths that say nothing of the machine."""
    frames = list(stack)
    while frames and any(part in frames[0].filename for part in _OURS):
        frames.pop(0)
    kept = []
    for frame in frames:
        if frame.filename.startswith(_SDK):
            continue
        line = frame.line  # looks the source up, so before the path changes
        kept.append(
            traceback.FrameSummary(_relative(frame.filename, bundle), frame.lineno, frame.name, line=line)
        )
    return kept


def _relative(filename: str, bundle: Path | None) -> str:
    if bundle is not None and filename.startswith(f"{bundle}{os.sep}"):
        return filename[len(str(bundle)) + 1 :]
    for part in ("site-packages", f"python3.{os.sys.version_info.minor}"):  # type: ignore[attr-defined]
        before, found, after = filename.rpartition(f"{os.sep}{part}{os.sep}")
        if found and before:
            return after
    return filename
