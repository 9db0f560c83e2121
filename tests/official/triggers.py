"""Run by the official SDK's own interpreter: deploys a task with triggers, and works with them.

Arguments: endpoint (host:port). Standard input: one JSON object with `client_id` and `secret`. Prints one
JSON object as its last line.
"""

from clock import START, env
from program import sign_in, tell

import flyte
import flyte.remote as remote


def shown(details):
    return {
        "active": details.is_active,
        "version": details.pb2.spec.task_version,
        "labels": dict(details.pb2.spec.run_spec.labels.values),
        "inputs": [each.name for each in details.pb2.spec.inputs.literals],
        "moment": details.automation_spec.schedule.kickoff_time_input_arg,
    }


async def main(given: dict) -> dict:
    await sign_in(given)
    await flyte.deploy.aio(env)
    task = "official_clock.tick"
    told: dict = {"listed": {}, "start": START.isoformat()}
    async for each in remote.Trigger.listall.aio(task_name=task):
        details = await remote.Trigger.get.aio(name=each.name, task_name=task)
        told["listed"][each.name] = shown(details)
    run = await flyte.run.aio(await remote.Trigger.get.aio(name="mornings", task_name=task))
    await run.wait.aio(quiet=True)
    details = (await run.details.aio()).action_details.pb2
    told["ran"] = [run.phase.name, details.error_info.message, details.metadata.task.id.version]
    told["output"] = (await run.outputs.aio())[0] if run.phase.name == "SUCCEEDED" else ""
    await remote.Trigger.update.aio("rate", task, True)
    await remote.Trigger.update.aio("hourly", task, False)
    for name in ("rate", "hourly"):
        told[name] = shown(await remote.Trigger.get.aio(name=name, task_name=task))
    by_hand = flyte.Trigger("by-hand", inputs={"x": 3})
    made = await remote.Trigger.create.aio(by_hand, task)
    told["created"] = {"name": made.name, "active": made.is_active}
    for name in ("mornings", "rate", "hourly", "by-hand"):
        await remote.Trigger.delete.aio(name, task)
    told["left"] = [each.name async for each in remote.Trigger.listall.aio(task_name=task)]
    return told


tell(main)
