"""Deploying: from declared environments to versions on the control plane."""

from __future__ import annotations

from flyte._deploy.load import Loaded, load_file
from flyte._deploy.planning import Place, Plan, plan
from flyte._deploy.release import (
    IMAGE_LINE,
    DeployedApp,
    DeployedTask,
    Deployment,
    deploy,
    register,
    serve,
)
from flyte._deploy.steps import Progress, Step

__all__ = [
    "IMAGE_LINE",
    "DeployedApp",
    "DeployedTask",
    "Deployment",
    "Loaded",
    "Place",
    "Plan",
    "Progress",
    "Step",
    "deploy",
    "load_file",
    "plan",
    "register",
    "serve",
]
