"""Apps: web servers that the platform hosts, and that act for whoever calls them.

`AppEnvironment` declares one; `flyte.app.extras` has what FastAPI apps need.
"""

from __future__ import annotations

from ._environment import AppEnvironment
from ._scaling import Link, Scaling
from ._webhooks import Webhook

__all__ = ["AppEnvironment", "Link", "Scaling", "Webhook"]
