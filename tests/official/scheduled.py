"""A task with a trigger that is due soon, written with the official SDK; `schedule.py` deploys it."""

import json
import os
from datetime import datetime, timedelta, timezone

import flyte
import flyte.remote as remote

env = flyte.TaskEnvironment(name="official_scheduled")
START = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=15)  # noqa: UP017


@env.task(
    triggers=flyte.Trigger(
        "soon",
        flyte.FixedRate(1, start_time=START),
        inputs={"at": flyte.TriggerTime, "x": 7},
        env_vars={"MOOD": "calm"},
    )
)
async def tick(at: datetime, x: int) -> str:
    user = await remote.User.get.aio()
    return json.dumps([user.subject(), at.isoformat(), x, os.environ["MOOD"]])
