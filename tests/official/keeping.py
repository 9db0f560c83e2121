"""Run by the official SDK's own interpreter: keeps, lists, looks at and deletes a secret with a key.

Arguments: endpoint (host:port). Standard input: one JSON object with `client_id`, `secret` and `value`.
Prints one JSON object as its last line.
"""

from program import sign_in, tell

import flyte.remote as remote


async def main(given: dict) -> dict:
    await sign_in(given, "staging")
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


tell(main)
