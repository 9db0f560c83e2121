"""Run by the official SDK's own interpreter: deploys `scheduled.py` and looks at its trigger.

Arguments: endpoint (host:port). Standard input: one JSON object with `client_id` and `secret`. Prints one
JSON object as its last line.
"""

from program import sign_in, tell
from scheduled import START, env

import flyte
import flyte.remote as remote


async def main(given: dict) -> dict:
    await sign_in(given)
    await flyte.deploy.aio(env)
    details = await remote.Trigger.get.aio(name="soon", task_name="official_scheduled.tick")
    return {
        "start": START.isoformat(),
        "active": details.is_active,
        "as": dict(details.pb2.spec.run_spec.labels.values)["tower/run-as"],
    }


tell(main)
