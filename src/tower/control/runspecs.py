"""What a caller may say about a run, and what Tower says itself. None of it names another person (T10)."""

from __future__ import annotations

import re

from flyteidl2.common import run_pb2 as relations
from flyteidl2.task import run_pb2

from tower.control import specs, variables
from tower.errors import Exhausted, Invalid, Unsupported
from tower.identity.principal import ActorKind, Principal
from tower.settings import Settings

OWN_LABELS = "tower/"
"""Labels under this prefix are Tower's own: those that a client sends are dropped."""

GRANT = "tower/grant"
"""The annotation by which a caller asks for a shorter grant, in seconds."""

MAX_LABELS = 64
MAX_LABEL = 256
_RUN_NAME = re.compile(r"[a-z][a-z0-9-]{0,28}[a-z0-9]")
NOTHING = run_pb2.RunSpec()
"""What `clean` gives where nothing was asked for; never change it."""
_KEPT = ("interruptible", "cache_config", "envs")


def run_name(text: str) -> str:
    """A name that a caller chose. Raises Invalid."""
    if not _RUN_NAME.fullmatch(text):
        raise Invalid(
            "That is no name for a run.",
            hint="It starts with a letter and has 2 to 30 lower-case letters, digits and '-'.",
        )
    return text


def grant(asked: run_pb2.RunSpec) -> float | None:
    """How long the run may act for its person at most, in seconds; None says nothing. Raises Invalid."""
    text = asked.annotations.values.get(GRANT) if asked.HasField("annotations") else None
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) < 10 or int(text) == 0:
        raise Invalid(f"The annotation {GRANT} is no number of seconds.")
    return float(text)


def clean(asked: run_pb2.RunSpec, *, principal: Principal, settings: Settings) -> run_pb2.RunSpec:
    """The specification to store: what the caller may choose, and the run that asked, from its own identity.

    Parents, owners and recoveries that the message names are left out (T38, T39). Never change the result.
    """
    if not principal.actors and not asked.ByteSize():
        return NOTHING
    chosen = [(pair.key, pair.value) for pair in asked.envs.values]
    specs.check_env(chosen, settings=settings)
    variables.check(chosen)
    specs.check_identity(asked.security_context)
    if asked.security_context.secrets:
        raise Unsupported("A run names no secrets of its own.", hint="Declare them in the task.")
    kept = run_pb2.RunSpec(
        overwrite_cache=asked.overwrite_cache,
        queue=asked.queue[:MAX_LABEL],
        max_action_concurrency=asked.max_action_concurrency,
    )
    for name in _KEPT:
        if asked.HasField(name):
            getattr(kept, name).CopyFrom(getattr(asked, name))
    for name in ("labels", "annotations"):
        if asked.HasField(name):
            _copy(getattr(asked, name).values, getattr(kept, name).values)
    parent = next((actor.id for actor in reversed(principal.actors) if actor.kind is ActorKind.RUN), "")
    if parent:
        project, domain, run, *_ = parent.split("/")
        kept.relation.relation_type = relations.RELATION_TYPE_SPAWN
        related = kept.relation.related_to
        related.project, related.domain, related.name = project, domain, run
    return kept


def _copy(asked: dict[str, str], kept: dict[str, str]) -> None:
    if len(asked) > MAX_LABELS:
        raise Exhausted(f"A run has at most {MAX_LABELS} labels and as many annotations.")
    for key, value in asked.items():
        if not 0 < len(key) <= MAX_LABEL or len(value) > MAX_LABEL:
            raise Invalid(f"The keys and values of labels have at most {MAX_LABEL} characters.")
        if not key.startswith(OWN_LABELS):
            kept[key] = value
