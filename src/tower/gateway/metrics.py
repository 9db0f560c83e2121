"""What the gateway counts."""

from __future__ import annotations

from prometheus_client import Counter

REQUESTS = Counter(
    "tower_gateway_requests_total", "Requests at the gateway by what became of them.", ["outcome"]
)
