"""Run by the official SDK's own interpreter: keeps, lists, looks at and deletes a secret with a key.

Arguments: endpoint (host:port). Standard input: one JSON object with `client_id`, `secret` and `value`.
Prints one JSON object as its last line.
"""

import asyncio
import json
import sys

import flyte
import flyte.remote as remote


async def main() -> dict:
    given = json.load(sys.stdin)
    await flyte.init.aio(
        endpoint=f"dns:///{sys.argv[1]}",
        project="flytesnacks",
        domain="staging",
        auth_type="ClientSecret",
        client_id=given["client_id"],
        client_credentials_secret=given["secret"],
        disable_keyring=True,
    )
    await remote.Secret.create.aio("one", given["value"])
    await remote.Secret.create.aio("two", given["value"].encode())
    found = await remote.Secret.get.aio("one")
    listed = [each.name async for each in remote.Secret.listall.aio(limit=1)]
    await remote.Secret.delete.aio("one")
    after = [each.name async for each in remote.Secret.listall.aio()]
    try:
        await remote.Secret.get.aio("one")
        gone = "there"
    except Exception as error:
        gone = str(getattr(error, "code", type(error).__name__))
    shown = {"name": found.name, "type": found.type, "text": str(found.pb2)}
    return {"found": shown, "listed": listed, "after": after, "gone": gone}


print(json.dumps(asyncio.run(main())))
