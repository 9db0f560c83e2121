"""A task with triggers, written with the official SDK; `triggers.py` deploys it."""

from datetime import datetime, timedelta, timezone

import flyte

env = flyte.TaskEnvironment(name="official_clock")
START = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=1)  # noqa: UP017


@env.task(
    triggers=(
        flyte.Trigger(
            "mornings",
            flyte.Cron("0 9 * * 1-5", timezone="Europe/Berlin"),
            inputs={"at": flyte.TriggerTime, "x": 7},
            env_vars={"MOOD": "calm"},
            description="every working day",
        ),
        flyte.Trigger("rate", flyte.FixedRate(90, start_time=START), inputs={"x": 1}, auto_activate=False),
        flyte.Trigger.hourly("at", inputs={"x": 2}),
    )
)
async def tick(x: int, at: datetime = datetime(2020, 1, 1, tzinfo=timezone.utc)) -> str:  # noqa: UP017
    return f"{x} at {at.isoformat()}"
