"""Attempts and apps as processes of this machine: templates fork attempts, apps are started afresh."""

from __future__ import annotations

from tower.executors.process.executor import ProcessExecutor

__all__ = ["ProcessExecutor"]
