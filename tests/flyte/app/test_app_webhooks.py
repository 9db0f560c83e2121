"""What an app declares about webhooks of third parties."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flyte._deploy.specs import app_message
from flyte.app import AppEnvironment, Webhook
from flyte.errors import DeclarationError


def declare(**options: Any) -> AppEnvironment:
    return AppEnvironment("hooks", command=["serve"], **options)


def test_the_message_names_paths_and_schemes() -> None:
    hooks = [Webhook("/github", scheme="github"), Webhook("/slack/events", scheme="slack")]
    message = app_message(declare(webhooks=hooks), module="m")

    options = {pair.key: pair.value for pair in message.spec.container.config}
    assert json.loads(options["flyte.webhooks"]) == [
        {"path": "/github", "scheme": "github"},
        {"path": "/slack/events", "scheme": "slack"},
    ]


def test_an_app_without_webhooks_says_nothing_of_them() -> None:
    message = app_message(declare(), module="m")

    assert "flyte.webhooks" not in {pair.key for pair in message.spec.container.config}


@pytest.mark.parametrize("scheme", ["", "md5", "GITHUB", None])
def test_a_scheme_that_there_is_not_is_refused(scheme: Any) -> None:
    with pytest.raises(DeclarationError, match="no scheme"):
        Webhook("/x", scheme=scheme)


@pytest.mark.parametrize(
    "options",
    [
        {"webhooks": ["/github"]},
        {"webhooks": "github"},
        {"webhooks": [Webhook("github", "github")]},
        {"webhooks": [Webhook("/../x", "github")]},
        {"webhooks": [Webhook("/x", "github"), Webhook("/x", "hmac")]},
        {"webhooks": [Webhook("/x", "github")], "public_paths": ["/x"]},
        {"webhooks": [Webhook(f"/{number}", "hmac") for number in range(17)]},
    ],
    ids=lambda options: str(options)[:60],
)
def test_what_cannot_work_is_refused_with_the_field_named(options: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="webhooks"):
        declare(**options)
