"""Where each app answers: the gateway's table, kept in memory and corrected by each commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tower.control import appspecs
from tower.errors import Fault
from tower.identity.webhooks import Scheme
from tower.policy.actions import Resource, ResourceType
from tower.settings import Settings
from tower.states import Desired
from tower.store.apps import AppRow

DEFAULT_REQUEST_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Place:
    """All that the gateway has to know of an app before it decides."""

    project: str
    domain: str
    name: str
    host: str  # the label below the apps domain
    revision: int
    desired: Desired
    requires_auth: bool
    raw: bool
    public_paths: frozenset[str]
    webhooks: Mapping[str, Scheme]
    request_timeout: float

    @property
    def id(self) -> str:
        """`project/domain/name`."""
        return f"{self.project}/{self.domain}/{self.name}"

    @property
    def resource(self) -> Resource:
        """The app as policy sees it."""
        return Resource(ResourceType.APP, project=self.project, domain=self.domain, name=self.name)


class Places:
    """The table. Looking up an unknown name costs no more than a known one, and never reaches the store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_id: dict[str, Place] = {}
        self._by_host: dict[str, Place] = {}

    def load(self, rows: Iterable[AppRow]) -> None:
        """Fill the table anew."""
        self._by_id.clear()
        self._by_host.clear()
        for row in rows:
            self.put(row)

    def put(self, row: AppRow) -> None:
        """Note an app as it was just committed."""
        self.drop(row.id)
        try:
            declared = appspecs.read(appspecs.stored(row), self._settings)
        except Fault:
            return  # rows of an older rule that no longer hold are not served
        place = Place(
            project=row.project,
            domain=row.domain,
            name=row.name,
            host=row.host,
            revision=row.revision,
            desired=row.desired,
            requires_auth=row.requires_auth,
            raw=declared.raw,
            public_paths=declared.public_paths,
            webhooks=declared.webhooks,
            request_timeout=declared.request_timeout or DEFAULT_REQUEST_TIMEOUT,
        )
        self._by_id[place.id] = place
        self._by_host[place.host] = place

    def drop(self, app_id: str) -> None:
        """Forget an app."""
        place = self._by_id.pop(app_id, None)
        if place is not None:
            self._by_host.pop(place.host, None)

    def by_label(self, label: str) -> Place | None:
        """The app with this host label, exactly."""
        return self._by_host.get(label)

    def by_id(self, project: str, domain: str, name: str) -> Place | None:
        """The app of this key."""
        return self._by_id.get(f"{project}/{domain}/{name}")
