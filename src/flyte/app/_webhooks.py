"""Paths of an app that third parties deliver signed webhooks to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from flyte.errors import DeclarationError

Scheme = Literal["github", "slack", "standard", "hmac"]

MAX_WEBHOOKS = 16


@dataclass(frozen=True)
class Webhook:
    """A path that a third party delivers to, with a signature instead of a credential of the platform.

    ::

        app_env = FastAPIAppEnvironment("hooks", app=app, webhooks=[Webhook("/github", scheme="github")])

    The platform checks the signature before anything reaches the app. The handler then acts as whom an
    administrator mapped the webhook to; secret and mapping are no part of the code.

    :param path: as the router sees it.
    :param scheme: how the third party signs: "github", "slack", "standard" (Standard Webhooks) or "hmac"
        (`X-Webhook-Signature: sha256=<hex>` over `<X-Webhook-Timestamp>.<body>`).
    :raises DeclarationError: for a scheme that there is not.
    """

    path: str
    scheme: Scheme

    def __post_init__(self) -> None:
        if self.scheme not in get_args(Scheme):
            raise DeclarationError(
                f"{self.scheme!r} is no scheme of webhooks.", hint=f"There are {', '.join(get_args(Scheme))}."
            )
