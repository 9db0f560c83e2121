"""Run by the official SDK's own interpreter: deploys `hosted.py` as a program with a key.

Arguments: endpoint (host:port). Standard input: one JSON object with `client_id` and `secret`. Prints one
JSON object as its last line: the names that were deployed.
"""

import hosted
from program import sign_in, tell

import flyte


async def main(given: dict) -> dict:
    names = []
    for env, domain in (
        (hosted.env, "development"),
        (hosted.packed, "development"),
        (hosted.knowing, "development"),
        (hosted.filed, "development"),
        (hosted.vault, "staging"),
    ):
        await sign_in(given, domain)
        await flyte.deploy.aio(env)
        names += sorted(env.tasks)
    return {"names": names}


tell(main)
