"""What an app declares about webhooks: the option `flyte.webhooks`, a JSON list of paths with their schemes.

Whom a delivery runs as is not declared here: that is for who administers the app, not for its code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from tower.errors import Invalid
from tower.identity.webhooks import Scheme

OPTION = "flyte.webhooks"
MOST = 16

_PATH = re.compile(r"/(?:[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*/?)?")


def declared(text: str) -> Mapping[str, Scheme]:
    """The scheme of each path. Raises Invalid."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"The option {OPTION} is not a JSON list.") from error
    if not isinstance(entries, list) or len(entries) > MOST:
        raise Invalid(f"The option {OPTION} is a list of at most {MOST} webhooks.")
    found: dict[str, Scheme] = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.keys() != {"path", "scheme"}:
            raise Invalid(f"An entry of {OPTION} has a path and a scheme.")
        path = check_path(entry["path"])
        if path in found:
            raise Invalid(f"The path {path} stands twice in {OPTION}.")
        found[path] = scheme(entry["scheme"])
    return found


def check_path(path: object) -> str:
    """The path, if the gateway can compare it with that of a request. Raises Invalid."""
    plain = isinstance(path, str) and len(path) <= 200 and _PATH.fullmatch(path)
    if not isinstance(path, str) or not plain or {".", ".."} & set(path.split("/")):
        raise Invalid(
            "The path of a webhook starts with '/' and holds letters, digits and '._~-' only.",
            hint="Write it as the app's router sees it: '/github'.",
        )
    return path


def scheme(name: object) -> Scheme:
    """The scheme of this name. Raises Invalid."""
    try:
        return Scheme(str(name))
    except ValueError:
        raise Invalid(f"The scheme of a webhook is one of {', '.join(Scheme)}.") from None
