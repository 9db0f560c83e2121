"""Signing in from a terminal without a browser (RFC 8628)."""

from __future__ import annotations

import asyncio
import getpass
import platform
from collections.abc import Callable

from flyte.errors import DeadlineExceededError, ServerError, UnauthenticatedError, UnavailableError
from flyte.transport.login.cache import Entry
from flyte.transport.login.server import AuthServer, Refused

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_SLOWER_SECONDS = 5.0


def this_device() -> str:
    """What the confirmation page calls this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return f"{user} on {platform.node() or 'a machine'} ({platform.system() or 'unknown system'})"


async def sign_in(
    server: AuthServer, *, scope: str, device: str, show: Callable[[str, str, str], None]
) -> Entry:
    """Have a person confirm a code. `show` gets the page, the code, and the page with the code in it.

    Raises UnauthenticatedError for a no, DeadlineExceededError when nobody answered in time.
    """
    told = await server.device(scope=scope, device_name=device)
    try:
        code, page = str(told["device_code"]), str(told["verification_uri"])
        pace, left = float(told.get("interval", 5)), float(told["expires_in"])
        show(page, str(told["user_code"]), str(told.get("verification_uri_complete", page)))
    except (KeyError, TypeError, ValueError):
        raise ServerError(f"{server.endpoint} answered the login with no code.") from None
    while left > 0:
        await asyncio.sleep(pace)
        left -= pace
        try:
            tokens = await server.token(grant_type=GRANT, device_code=code)
        except UnavailableError:
            continue  # RFC 8628 section 3.5: wait, and ask again
        except Refused as refused:
            match refused.code:
                case "authorization_pending":
                    continue
                case "slow_down":
                    pace += _SLOWER_SECONDS
                    continue
                case "access_denied":
                    raise UnauthenticatedError("The answer in the browser was no.") from None
                case "expired_token":
                    break
                case _:
                    raise
        entry = server.entry(tokens, subject="")
        return server.entry(tokens, subject=await server.subject(entry.access_token))
    raise DeadlineExceededError("Nobody confirmed the code in time.", hint="Try again.")
