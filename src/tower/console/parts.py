"""The rooms that the console works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tower.control.access import Access
from tower.control.accounts import Accounts
from tower.control.apps import Apps
from tower.control.data import Data
from tower.control.directory import Directory
from tower.control.federation import Federation
from tower.control.logins import Logins
from tower.control.oauth import Devices
from tower.control.projects import Projects
from tower.control.runs import Runs
from tower.control.standinggrants import StandingGrants
from tower.control.tailing import Tailing
from tower.control.tasks import Tasks
from tower.control.triggerviews import TriggerViews
from tower.control.watching import Watching
from tower.identity.chain import Chain
from tower.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """Handed to `build`. `base_url` gives Tower's public base URL for a request's Host header."""

    chain: Chain
    access: Access
    directory: Directory
    logins: Logins
    accounts: Accounts
    federation: Federation
    devices: Devices
    projects: Projects
    runs: Runs
    grants: StandingGrants
    watching: Watching
    data: Data
    tailing: Tailing
    tasks: Tasks
    apps: Apps
    triggers: TriggerViews
    settings: Settings
    base_url: Callable[[str], str]
    isolation: str = ""
    """How tasks and apps are kept apart on this machine."""
