"""What the scripts for the official SDK's own interpreter share: signing in as a program, and telling.

Arguments of each: endpoint (host:port). Standard input: one JSON object with `client_id` and `secret`, and
what the script asks for besides. Each prints one JSON object, alone on a line.
"""

import asyncio
import json
import os
import sys

import flyte


async def sign_in(given: dict, domain: str = "development") -> None:
    """Be the program that the key belongs to."""
    await flyte.init.aio(
        endpoint=f"dns:///{sys.argv[1]}",
        project="flytesnacks",
        domain=domain,
        auth_type="ClientSecret",
        client_id=given["client_id"],
        client_credentials_secret=given["secret"],
        disable_keyring=True,
        image_builder="remote",
    )


def tell(main) -> None:
    """Run `main` with what was given, print what it returns, and end."""
    told = json.dumps(asyncio.run(main(json.load(sys.stdin))))
    print(f"\n{told}", flush=True)  # whatever the SDK has begun to write on this line
    os._exit(0)  # its transport now and then aborts while the interpreter is taken down
