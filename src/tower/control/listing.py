"""What a door hands to a list: a query in plain words. The store checks and runs it."""

from __future__ import annotations

from tower.store.listing import MAX_PAGE, Filter, Op, Query, prepare

__all__ = ["MAX_PAGE", "Filter", "Op", "Query", "prepare"]
