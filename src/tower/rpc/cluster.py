"""Which cluster serves a request: this one. ClusterService."""

from __future__ import annotations

from typing import Any

from flyteidl2.cluster import payload_pb2


class ClusterService:
    """flyteidl2.cluster.ClusterService."""

    async def select_cluster(self, request: Any, ctx: Any) -> Any:
        """An empty endpoint: the client stays where it is, and its credential with it."""
        return payload_pb2.SelectClusterResponse()
