"""The composition root: settings → database → rooms → one ASGI application and its background loops.

The only room that knows everyone.
"""

from __future__ import annotations

from tower.main.guards import Guards
from tower.main.house import House, compose
from tower.main.proof import exported, prove
from tower.main.server import up

__all__ = ["Guards", "House", "compose", "exported", "prove", "up"]
