"""Which apps are being started just now: only such a process is given the app's secrets, and once."""

from __future__ import annotations

import secrets

from tower.store.apps import AppRow


class Starting:
    """A ticket for each start. It is good on the app's own socket alone, before any code of the app runs."""

    def __init__(self) -> None:
        self._rows: dict[str, AppRow] = {}

    def expect(self, row: AppRow) -> str:
        """A ticket for a process of this revision."""
        ticket = secrets.token_urlsafe(16)
        self._rows[ticket] = row
        return ticket

    def take(self, app: str, ticket: str) -> AppRow | None:
        """What is being started with this ticket, which is used up by that; None for any other text."""
        row = self._rows.get(ticket)
        if row is None or row.id != app:
            return None
        del self._rows[ticket]
        return row

    def forget(self, ticket: str) -> None:
        """The process has started, or will not."""
        self._rows.pop(ticket, None)
