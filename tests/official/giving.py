"""Run by the official SDK's own interpreter: deploys `privileged.py`, or asks for privileges when calling.

Arguments: endpoint (host:port). Standard input: one JSON object with `client_id`, `secret`, and `try`: the
name of a secret to write in other ways than by deploying, or "". Prints one JSON object as its last line.
"""

import json

import privileged
from program import sign_in, tell

import flyte
import flyte.remote as remote

CLAIM = {"flyte.privileges": json.dumps(["secret:create"])}


async def outcome(run) -> list[str]:
    await run.wait.aio(quiet=True)
    details = (await run.details.aio()).action_details.pb2
    return [run.phase.name, details.error_info.message]


async def main(given: dict) -> dict:
    await sign_in(given)
    if not given["try"]:
        try:
            await flyte.deploy.aio(privileged.plainly)
            await flyte.deploy.aio(privileged.rotation)
            await flyte.deploy.aio(privileged.plainly_asks)
        except Exception as error:
            return {"deployed": f"{type(error).__name__}: {error}"}
        return {"deployed": ""}
    lacks = remote.Task.get(name="plainly.lacks", auto_version="latest")
    claiming = flyte.with_runcontext(
        labels=CLAIM,
        annotations=CLAIM,
        custom_context=CLAIM,
        env_vars={"PRIVILEGES": CLAIM["flyte.privileges"]},
    )
    sent_along = flyte.with_runcontext(mode="remote")
    return {
        "claimed by the caller": await outcome(await claiming.run.aio(lacks, name=given["try"])),
        "sent along": await outcome(await sent_along.run.aio(privileged.rotate, name=given["try"])),
    }


tell(main)
