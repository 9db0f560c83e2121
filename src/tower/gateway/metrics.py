"""What the gateway counts."""

from __future__ import annotations

from tower.metrics import Family

REQUESTS = Family(
    "tower_gateway_requests_total", "Requests at the gateway by what became of them.", "outcome"
)
