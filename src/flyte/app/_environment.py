"""AppEnvironment: an app declared next to its code, for `flyte serve`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from flyte._environment import Environment, declare
from flyte._requirements import (
    Image,
    Resources,
    Secret,
    as_image,
    as_secrets,
    check_description,
    check_variables,
)
from flyte.errors import DeclarationError

from ._scaling import Link, Scaling
from ._webhooks import MAX_WEBHOOKS, Webhook

Passthrough = Literal["exchange", "raw"]

MAX_PUBLIC_PATHS = 64
MAX_NAME = 63  # a label of a host name, RFC 1035 section 2.3.4
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_PATH = re.compile(r"/(?:[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*/?)?")


@dataclass(frozen=True, eq=False)
class AppEnvironment:
    """A web server that the platform hosts behind its gateway.

    ::

        app_env = AppEnvironment(
            "report-viewer",
            command=["gunicorn", "--bind", "unix:$FLYTE_APP_SOCKET", "viewer:app"],
            image=flyte.Image.from_debian_base().with_pip_packages("gunicorn"),
        )

    The command must serve HTTP on the unix socket whose path is in `FLYTE_APP_SOCKET`; `$FLYTE_APP_SOCKET`
    in an argument stands for that path. Nothing but the gateway reaches the socket. For an ASGI app use
    `flyte.app.extras.FastAPIAppEnvironment`, which needs no command.

    :param name: lower-case letters, digits and hyphens, at most 63: it becomes part of a host name.
    :param image: an Image, the URI of one, or "auto".
    :param env_vars: set in the app's process. Names that the platform sets itself are refused.
    :param requires_auth: True (default) lets no unauthenticated request reach the process.
    :param public_paths: exact paths that the gateway serves without authentication all the same.
    :param webhooks: paths that third parties deliver to with a signature, `flyte.app.Webhook(...)`.
    :param scaling: how many processes; by default one that stops when idle.
    :param passthrough: "exchange" (default) gives the app a short-lived token of its caller; "raw" hands over
        the caller's own credential and needs a permission of its own.
    :param secrets: what `flyte create secret` keeps and the app may read: names or flyte.Secret(...). Whoever
        deploys the app must be allowed to use them.
    :param links: pages that the console shows beside the app.
    :param depends_on: environments that are deployed along with this one.
    :raises DeclarationError: for anything that cannot work, naming the field.
    """

    name: str
    _: KW_ONLY
    image: Image = "auto"  # type: ignore[assignment]  # strings are accepted and made an Image
    resources: Resources = field(default_factory=Resources)
    env_vars: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    requires_auth: bool = True
    public_paths: tuple[str, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    scaling: Scaling = field(default_factory=Scaling)
    command: tuple[str, ...] = ()
    passthrough: Passthrough = "exchange"
    secrets: tuple[Secret, ...] = ()
    links: tuple[Link, ...] = ()
    depends_on: tuple[Environment, ...] = ()

    type: str = field(default="Custom", init=False, repr=False)
    """What kind of app this is, for lists."""

    if TYPE_CHECKING:

        def __init__(
            self,
            name: str,
            *,
            image: Image | str = "auto",
            resources: Resources | None = None,
            env_vars: Mapping[str, str] | None = None,
            description: str | None = None,
            requires_auth: bool = True,
            public_paths: Iterable[str] = (),
            webhooks: Iterable[Webhook] = (),
            scaling: Scaling | None = None,
            command: Iterable[str] = (),
            passthrough: Passthrough = "exchange",
            secrets: str | Secret | Iterable[str | Secret] | None = None,
            links: Iterable[Link] = (),
            depends_on: Iterable[Environment] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        what = f"the app {self.name!r}"
        _check_app_name(self.name)
        if self.resources is not None and not isinstance(self.resources, Resources):
            raise DeclarationError(f"resources of {what} must be flyte.Resources(...).")
        if self.scaling is not None and not isinstance(self.scaling, Scaling):
            raise DeclarationError(f"scaling of {what} must be flyte.app.Scaling(...).")
        if not isinstance(self.requires_auth, bool):
            raise DeclarationError(f"requires_auth of {what} must be True or False.")
        if self.passthrough not in ("exchange", "raw"):
            raise DeclarationError(f'passthrough of {what} must be "exchange" or "raw".')
        self._set("image", as_image(self.image))
        self._set("resources", self.resources or Resources())
        self._set("scaling", self.scaling or Scaling())
        self._set("env_vars", check_variables(self.env_vars, what=what))
        self._set("description", check_description(self.description, what=what))
        self._set("public_paths", _paths(self.public_paths, "public_paths", what=what))
        self._set("webhooks", _webhooks(self.webhooks, self.public_paths, what=what))
        self._set("command", _strings(self.command, "command", what))
        self._set("secrets", as_secrets(self.secrets, what=what))
        self._set("links", _items(self.links, "links", what))
        if not all(isinstance(link, Link) for link in self.links):
            raise DeclarationError(f"links of {what} must be flyte.app.Link(...).")
        self._set("depends_on", _items(self.depends_on, "depends_on", what))
        if not all(isinstance(getattr(each, "name", None), str) for each in self.depends_on):
            raise DeclarationError(f"depends_on of {what} must be a list of environments.")
        if not self.command and self.asgi() is None:
            raise DeclarationError(
                f"{what[0].upper()}{what[1:]} has no command.",
                hint="Give command=[...], or use FastAPIAppEnvironment(app=...) for an ASGI app.",
            )
        declare(self, kind="app")

    def asgi(self) -> Callable[..., Any] | None:
        """The ASGI app that the platform's own server runs; None for an app with a command."""
        return None

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _check_app_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise DeclarationError(f"The name of an app must be a non-empty string, not {type(name).__name__}.")
    if len(name) > MAX_NAME:
        raise DeclarationError(f"The name of an app has {len(name)} characters; {MAX_NAME} are allowed.")
    if not _NAME.fullmatch(name):
        raise DeclarationError(
            f"{name!r} cannot be the name of an app.",
            hint="It is part of a host name: lower-case letters, digits and '-', beginning with a letter.",
        )


def _items(value: object, field_name: str, what: str) -> tuple[Any, ...]:
    if value is None:
        return ()
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise DeclarationError(f"{field_name} of {what} must be a list, not {type(value).__name__}.")
    return tuple(value)


def _strings(value: object, field_name: str, what: str) -> tuple[str, ...]:
    items = _items(value, field_name, what)
    if not all(isinstance(item, str) and "\0" not in item for item in items):
        raise DeclarationError(f"{field_name} of {what} must be a list of strings.")
    return items


def _webhooks(value: object, public: tuple[str, ...], *, what: str) -> tuple[Webhook, ...]:
    hooks = _items(value, "webhooks", what)
    if not all(isinstance(hook, Webhook) for hook in hooks):
        raise DeclarationError(f"webhooks of {what} must be flyte.app.Webhook(...).")
    if len(hooks) > MAX_WEBHOOKS:
        raise DeclarationError(f"{what} has more than {MAX_WEBHOOKS} webhooks.")
    paths = _paths([hook.path for hook in hooks], "webhooks", what=what)
    if len(set(paths)) != len(paths) or set(paths) & set(public):
        raise DeclarationError(f"A path of {what} stands twice in webhooks, or in public_paths besides.")
    return hooks


def _paths(value: object, field_name: str, *, what: str) -> tuple[str, ...]:
    """Exact paths in one spelling only: the gateway compares them with the path after its own decoding."""
    paths = _items(value, field_name, what)
    if len(paths) > MAX_PUBLIC_PATHS:
        raise DeclarationError(f"{what} has more than {MAX_PUBLIC_PATHS} paths in {field_name}.")
    for path in paths:
        if not isinstance(path, str) or not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
            raise DeclarationError(
                f"{path!r} cannot be a path in {field_name} of {what}.",
                hint="Write it as the router sees it: '/health'. Letters, digits and '-._~' between slashes.",
            )
    return paths
