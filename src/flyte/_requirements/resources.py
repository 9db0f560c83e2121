"""Resources: cpu, memory, disk and accelerators in the notation of Kubernetes quantities."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from flyte.errors import DeclarationError

Amount = int | float | str
Range = tuple[Amount, Amount]
"""What is asked for at least, and what may be used at most."""

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")
_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
}
_SMALLEST_MEMORY = 1024 * 1024
_MOST_CPU = 4096
_MOST_GPUS = 64


@dataclass(frozen=True, slots=True)
class Resources:
    """What one attempt or one app process gets.

    :param cpu: cores: `1`, `0.5`, `"500m"`; or a pair of request and limit.
    :param memory: `"512Mi"`, `"2Gi"`, or bytes; or a pair of request and limit.
    :param gpu: a number of devices.
    :param disk: ephemeral storage, in the notation of memory.
    """

    cpu: Amount | Range | None = None
    memory: Amount | Range | None = None
    gpu: int | None = None
    disk: Amount | None = None

    def __post_init__(self) -> None:
        _check_range(self.cpu, cpu_cores, name="cpu")
        _check_range(self.memory, memory_bytes, name="memory")
        if isinstance(self.disk, tuple):
            raise DeclarationError("disk is one amount, not a pair.")
        if self.disk is not None:
            memory_bytes(self.disk, name="disk")
        if self.gpu is not None and (
            isinstance(self.gpu, bool) or not isinstance(self.gpu, int) or not 0 <= self.gpu <= _MOST_GPUS
        ):
            raise DeclarationError(f"gpu must be a whole number between 0 and {_MOST_GPUS}.")

    def requests(self) -> dict[str, str]:
        """What is asked for at least: quantities by the names CPU, MEMORY, GPU and EPHEMERAL_STORAGE."""
        return self._side(0)

    def limits(self) -> dict[str, str]:
        """What may be used at most, by the same names."""
        return self._side(1)

    def _side(self, index: int) -> dict[str, str]:
        amounts: dict[str, Amount | None] = {
            "CPU": self.cpu[index] if isinstance(self.cpu, tuple) else self.cpu,
            "MEMORY": self.memory[index] if isinstance(self.memory, tuple) else self.memory,
            "GPU": self.gpu,
            "EPHEMERAL_STORAGE": self.disk,
        }
        return {name: str(amount) for name, amount in amounts.items() if amount is not None}


def cpu_cores(amount: Amount, *, name: str = "cpu") -> float:
    """Cores as a number: `"500m"` is 0.5. Raises DeclarationError."""
    hint = 'Write cores or thousandths: 1, 0.5, "500m".'
    text = _text(amount, name=name, hint=hint)
    milli = text.endswith("m")
    try:
        cores = Fraction(text[:-1] if milli else text) / (1000 if milli else 1)
    except (ValueError, ZeroDivisionError) as fault:
        raise DeclarationError(f"{amount!r} is not an amount of {name}.", hint=hint) from fault
    if not Fraction(1, 1000) <= cores <= _MOST_CPU:
        raise DeclarationError(f"{name} must be between 1m and {_MOST_CPU}, not {amount!r}.", hint=hint)
    return float(cores)


def memory_bytes(amount: Amount, *, name: str = "memory") -> int:
    """Bytes as a number: `"512Mi"` is 536870912. Raises DeclarationError."""
    hint = 'Write a number with a unit of k, M, G, T, P or Ki, Mi, Gi, Ti, Pi: "512Mi".'
    matched = _QUANTITY.fullmatch(_text(amount, name=name, hint=hint))
    if matched is None or matched[2] not in _UNITS:
        raise DeclarationError(f"{amount!r} is not an amount of {name}.", hint=hint)
    size = int(Fraction(matched[1]) * _UNITS[matched[2]])
    if size < _SMALLEST_MEMORY:
        raise DeclarationError(f"{amount!r} of {name} is less than 1Mi; is the unit missing?", hint=hint)
    if size >= 2**63:
        raise DeclarationError(f"{amount!r} of {name} is more than any machine has.", hint=hint)
    return size


def _text(amount: object, *, name: str, hint: str) -> str:
    if isinstance(amount, bool) or not isinstance(amount, (int, float, str)):
        raise DeclarationError(
            f"{name} must be a number or a string, not {type(amount).__name__}.", hint=hint
        )
    text = amount.strip() if isinstance(amount, str) else repr(amount)
    if not text or len(text) > 32 or not text[0].isdigit():
        raise DeclarationError(f"{amount!r} is not an amount of {name}.", hint=hint)
    return text


def _check_range(value: object, measure: object, *, name: str) -> None:
    assert callable(measure)
    if value is None:
        return
    if not isinstance(value, tuple):
        measure(value, name=name)
        return
    if len(value) != 2:
        raise DeclarationError(
            f"{name} is one amount or a pair of request and limit, not {len(value)} amounts."
        )
    if measure(value[0], name=name) > measure(value[1], name=name):
        raise DeclarationError(f"The request of {name} ({value[0]}) is above its limit ({value[1]}).")
