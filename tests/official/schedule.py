"""Run by the official SDK's own interpreter: deploys `scheduled.py` and looks at its trigger.

Arguments: endpoint (host:port). Standard input: one JSON object with `client_id` and `secret`. Prints one
JSON object as its last line.
"""

import asyncio
import json
import os
import sys

from scheduled import START, env

import flyte
import flyte.remote as remote


async def main() -> dict:
    given = json.load(sys.stdin)
    await flyte.init.aio(
        endpoint=f"dns:///{sys.argv[1]}",
        project="flytesnacks",
        domain="development",
        auth_type="ClientSecret",
        client_id=given["client_id"],
        client_credentials_secret=given["secret"],
        disable_keyring=True,
        image_builder="remote",
    )
    await flyte.deploy.aio(env)
    details = await remote.Trigger.get.aio(name="soon", task_name="official_scheduled.tick")
    return {
        "start": START.isoformat(),
        "active": details.is_active,
        "as": dict(details.pb2.spec.run_spec.labels.values)["tower/run-as"],
    }


print(json.dumps(asyncio.run(main())), flush=True)
os._exit(0)
