"""What the sockets and the agent count: on Tower's `/metrics` or, for its one attempt, on the agent's."""

from __future__ import annotations

from tower.metrics import Family

CALLS = Family("tower_agent_calls_total", "Calls of tasks and apps that were let in.")[""]
REFUSALS = Family("tower_agent_refusals_total", "Connections and calls that were turned away.", "reason")
FORWARDED = Family(
    "tower_agent_forwarded_total", "Calls that went on to Tower, by what became of them.", "outcome"
)
RENEWALS = Family("tower_agent_renewals_total", "Tokens asked for, by what became of it.", "outcome")
EXPIRES = Family("tower_agent_token_expires_seconds", "How long the token in hand still holds.")[""]
