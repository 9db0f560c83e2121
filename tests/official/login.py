"""Run by the official SDK's own interpreter: signs in to Tower and says who it is.

Arguments: endpoint (host:port) and the kind of login. Standard input: one JSON object, with `client_id` and
`secret` for programs. Prints one JSON object as its last line.
"""

import asyncio
import json
import os
import sys

import flyte
import flyte.remote as remote


async def main() -> dict:
    endpoint, kind = sys.argv[1:3]
    given = json.load(sys.stdin)
    options: dict = {"auth_type": kind, "disable_keyring": True}
    if kind == "ClientSecret":
        options |= {"client_id": given["client_id"], "client_credentials_secret": given["secret"]}
    await flyte.init.aio(
        endpoint=f"dns:///{endpoint}", project="flytesnacks", domain="development", **options
    )
    user = await remote.User.get.aio()
    again = await remote.User.get.aio()
    tasks = [task.name async for task in remote.Task.listall.aio(limit=1)]
    return {"subject": user.subject(), "again": again.subject(), "tasks": len(tasks)}


print(json.dumps(asyncio.run(main())), flush=True)
os._exit(0)  # its transport now and then aborts while the interpreter is taken down
