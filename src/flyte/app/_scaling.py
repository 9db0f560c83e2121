"""How many processes an app has, and what it shows beside itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from flyte.errors import DeclarationError

MAX_REPLICAS = 100


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many processes serve an app.

    :param replicas: the fewest and the most, or one number for both. With 0 as the fewest, an idle app stops
        and wakes at the next authenticated request.
    :param scaledown_after: how long an app has to be idle before a process stops: seconds or a timedelta;
        None leaves it to the platform.
    """

    replicas: tuple[int, int] | int = (0, 1)
    scaledown_after: timedelta | float | None = None

    def __post_init__(self) -> None:
        pair = (self.replicas, self.replicas) if isinstance(self.replicas, int) else self.replicas
        if not isinstance(pair, tuple) or len(pair) != 2 or any(type(number) is not int for number in pair):
            raise DeclarationError("replicas is a number of processes, or a pair of the fewest and the most.")
        if not 0 <= pair[0] <= pair[1] <= MAX_REPLICAS or pair[1] == 0:
            raise DeclarationError(
                f"replicas {pair}: need 0 <= fewest <= most, and 1 <= most <= {MAX_REPLICAS}."
            )
        object.__setattr__(self, "replicas", pair)
        if self.scaledown_after is not None:
            object.__setattr__(self, "scaledown_after", _period(self.scaledown_after))

    @property
    def fewest(self) -> int:
        """Processes that always run."""
        assert isinstance(self.replicas, tuple)
        return self.replicas[0]

    @property
    def most(self) -> int:
        """Processes that ever run at once."""
        assert isinstance(self.replicas, tuple)
        return self.replicas[1]

    @property
    def scaledown_seconds(self) -> float | None:
        """How long an app has to be idle before it stops, in seconds; None when the platform decides."""
        period = self.scaledown_after
        return period.total_seconds() if isinstance(period, timedelta) else period


def _period(value: object) -> timedelta:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= 86400:
        raise DeclarationError("scaledown_after is a time between one second and one day.")
    return timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Link:
    """A page that the console shows beside an app: a path of the app, or with `is_relative=False` a URL."""

    path: str
    title: str
    is_relative: bool = True

    def __post_init__(self) -> None:
        if not self.title or len(self.title) > 128:
            raise DeclarationError("The title of a link has 1 to 128 characters.")
        if self.is_relative:
            if not self.path.startswith("/") or self.path.startswith("//"):
                raise DeclarationError(f"The path {self.path!r} of a link must begin with one '/'.")
        elif not self.path.startswith(("https://", "http://")):
            raise DeclarationError(f"The link {self.path!r} must be a http or https URL.")
