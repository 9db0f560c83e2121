"""Tasks of the official SDK that declare privileges, by its own way of adding types of tasks."""

import json
import os
from dataclasses import dataclass

from flyte.extend import AsyncFunctionTaskTemplate, TaskPluginRegistry

import flyte
import flyte.remote as remote


@dataclass
class Privileges:
    actions: tuple[str, ...]


@dataclass(kw_only=True)
class PrivilegedTask(AsyncFunctionTaskTemplate):
    plugin_config: Privileges

    def config(self, sctx):
        return {"flyte.privileges": json.dumps(self.plugin_config.actions)}


TaskPluginRegistry.register(Privileges, PrivilegedTask)

rotation = flyte.TaskEnvironment(name="rotation", plugin_config=Privileges(("secret:create",)))
plainly = flyte.TaskEnvironment(name="plainly")


async def write(name: str) -> str:
    await remote.Secret.create.aio(name, os.urandom(16).hex())
    return (await remote.User.get.aio()).subject()


@rotation.task
async def rotate(name: str) -> str:
    return await write(name)


@rotation.task
async def asks_privileged(name: str) -> str:
    return await rotate(name)


@plainly.task
async def lacks(name: str) -> str:
    return await write(name)


plainly_asks = flyte.TaskEnvironment(name="plainly_asks", depends_on=[rotation])


@plainly_asks.task
async def confused(name: str) -> str:
    """Code without the privilege that asks a task with it."""
    return await rotate(name)
