"""FastAPIAppEnvironment: a FastAPI, Starlette or other ASGI app that the platform serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from flyte.app import AppEnvironment, Link, Scaling, Webhook
from flyte.errors import DeclarationError

if TYPE_CHECKING:
    from flyte._environment import Environment
    from flyte._requirements import Image, Resources
    from flyte.app._environment import Passthrough


@dataclass(frozen=True, eq=False)
class FastAPIAppEnvironment(AppEnvironment):
    """A FastAPI app that the platform hosts behind its gateway.

    ::

        app_env = FastAPIAppEnvironment(
            name="webhook-runner",
            app=app,
            image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn"),
            resources=flyte.Resources(cpu=1, memory="512Mi"),
        )

    `flyte serve FILE app_env` deploys it. The platform runs it with uvicorn, which its image must hold beside
    FastAPI. The console links to `/docs` when the app has it.

    :param app: the FastAPI or Starlette app, or any ASGI callable.

    The other parameters are those of `flyte.app.AppEnvironment`, without `command`.
    """

    _: KW_ONLY
    app: Any = None
    type: str = field(default="FastAPI", init=False, repr=False)

    if TYPE_CHECKING:

        def __init__(
            self,
            name: str,
            *,
            app: Any,
            image: Image | str = "auto",
            resources: Resources | None = None,
            env_vars: Mapping[str, str] | None = None,
            description: str | None = None,
            requires_auth: bool = True,
            public_paths: Iterable[str] = (),
            webhooks: Iterable[Webhook] = (),
            scaling: Scaling | None = None,
            passthrough: Passthrough = "exchange",
            links: Iterable[Link] = (),
            depends_on: Iterable[Environment] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        if not callable(self.app):
            raise DeclarationError(f"app of the app {self.name!r} must be a FastAPI app or another ASGI app.")
        if self.command:
            raise DeclarationError(
                "FastAPIAppEnvironment runs its app itself; for a command use AppEnvironment."
            )
        docs = getattr(self.app, "docs_url", None)
        if not self.links and isinstance(docs, str):
            self._set("links", (Link(docs, "API documentation"),))
        super().__post_init__()

    def asgi(self) -> Callable[..., Any] | None:
        """The ASGI app that the platform's own server runs."""
        app: Callable[..., Any] = self.app
        return app
