"""Run by the official SDK's own interpreter: acts as a webhook that passes its caller through.

Arguments: endpoint (host:port). Standard input: one JSON object with `key`. Prints one JSON object.
"""

import asyncio
import json
import sys

import flyte
import flyte.remote as remote


async def main() -> dict:
    endpoint, key = sys.argv[1], json.load(sys.stdin)["key"]
    await flyte.init_passthrough.aio(
        endpoint=f"dns:///{endpoint}", project="flytesnacks", domain="development"
    )
    told: dict = {"version": flyte.__version__}
    with remote.auth_metadata(("authorization", f"Bearer {key}")):
        user = await remote.User.get.aio()
        told["subject"] = user.subject()
        task = remote.Task.get(
            project="flytesnacks", domain="development", name="my_env.my_task", auto_version="latest"
        )
        run = await flyte.run.aio(task, x=42, y="hello")
        told["name"], told["url"] = run.name, run.url
        await run.wait.aio(quiet=True)
        outputs = await run.outputs.aio()
        told["phase"] = str(run.phase)
        told["output"] = outputs[0]
    try:
        await remote.User.get.aio()
        told["anonymous"] = "accepted"
    except Exception as error:
        told["anonymous"] = str(getattr(error, "code", type(error).__name__))
    return told


print(json.dumps(asyncio.run(main())))
