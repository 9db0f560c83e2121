"""The names that users of flytekit know, over `flyte`: `task`, `eager` and `remote`.

::

    from flytekit import task, remote, eager

    @task
    def say_hello(name: str) -> str: ...

    @eager(remote=remote.default())
    async def hello_main(name: str = "flyte") -> str:
        return await say_hello(name=name)

This is not the project of that name, and it has nothing but these three. Everything else is in `flyte`.
"""

from __future__ import annotations

from flytekit import remote
from flytekit._declare import FaceTask, eager, task

__all__ = ["FaceTask", "eager", "remote", "task"]
