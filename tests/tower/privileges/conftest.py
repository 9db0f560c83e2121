from __future__ import annotations

from tests.tower.secrets.conftest import den

__all__ = ["den"]
