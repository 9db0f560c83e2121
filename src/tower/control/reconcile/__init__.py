"""What makes things so: runs that were asked for are run, apps that are wanted are up."""

from __future__ import annotations

from tower.control.reconcile.apps import AppSupervisor
from tower.control.reconcile.bundles import Bundles
from tower.control.reconcile.parts import LoopTimers, Parts
from tower.control.reconcile.permit import LivePermit
from tower.control.reconcile.plan import Ground
from tower.control.reconcile.rooms import Rooms
from tower.control.reconcile.runs import Reconcile
from tower.control.reconcile.schedules import ScheduleLoop

__all__ = [
    "AppSupervisor",
    "Bundles",
    "Ground",
    "LivePermit",
    "LoopTimers",
    "Parts",
    "Reconcile",
    "Rooms",
    "ScheduleLoop",
]
