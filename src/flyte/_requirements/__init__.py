"""What a task or an app asks for: image, resources, retries, time. Frozen values, checked when declared."""

from __future__ import annotations

from flyte._requirements.attempts import RetryStrategy, Timeout, as_retry, as_timeout
from flyte._requirements.image import Image, as_image
from flyte._requirements.names import check_description, check_name
from flyte._requirements.origin import Origin, origin
from flyte._requirements.resources import Resources, cpu_cores, memory_bytes
from flyte._requirements.secret import Secret, as_secrets
from flyte._requirements.trigger import Cron, FixedRate, Trigger, TriggerTime, as_triggers
from flyte._requirements.variables import check_variables

__all__ = [
    "Cron",
    "FixedRate",
    "Image",
    "Origin",
    "Resources",
    "RetryStrategy",
    "Secret",
    "Timeout",
    "Trigger",
    "TriggerTime",
    "as_image",
    "as_retry",
    "as_secrets",
    "as_timeout",
    "as_triggers",
    "check_description",
    "check_name",
    "check_variables",
    "cpu_cores",
    "memory_bytes",
    "origin",
]
