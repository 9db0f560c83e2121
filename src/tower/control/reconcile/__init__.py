"""What makes things so: runs that were asked for are run, apps that are wanted are up."""

from __future__ import annotations

from tower.control.reconcile.ahead import Ahead
from tower.control.reconcile.apps import AppSupervisor
from tower.control.reconcile.beside import BesideAgents, Reach
from tower.control.reconcile.bundles import Bundles
from tower.control.reconcile.parts import Agent, LoopTimers, Parts
from tower.control.reconcile.permit import LivePermit, LiveWatch
from tower.control.reconcile.plan import Ground
from tower.control.reconcile.rooms import Rooms
from tower.control.reconcile.runs import Reconcile
from tower.control.reconcile.schedules import ScheduleLoop

__all__ = [
    "Agent",
    "Ahead",
    "AppSupervisor",
    "BesideAgents",
    "Bundles",
    "Ground",
    "LivePermit",
    "LiveWatch",
    "LoopTimers",
    "Parts",
    "Reach",
    "Reconcile",
    "Rooms",
    "ScheduleLoop",
]
