"""The auth agent: one socket per attempt or app, and the kernel says who is calling."""

from __future__ import annotations

from tower.agent.sockets import AgentSockets, Kind, Refusals

__all__ = ["AgentSockets", "Kind", "Refusals"]
