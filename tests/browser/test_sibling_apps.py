"""T19: no app plants a cookie at a sibling or at the console, neither by its answers nor by its pages."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect
from tests.browser.visitor import Visitor


def test_t19_an_app_signs_nobody_in_at_its_siblings(
    visitors: Callable[[], Visitor], alice: Visitor, lobby: str
) -> None:
    """Alice's session of one app, planted from another host of an app in the browser of somebody else."""
    alice.page.goto(f"{lobby}/hall")
    expect(alice.page.locator("#who")).to_have_text("alice in hall")
    lobby_host = lobby.removeprefix("http://").partition(":")[0]
    [session] = [
        each["value"]
        for each in alice.context.cookies()
        if (each["domain"], each["name"]) == (lobby_host, "tower_session")
    ]
    victim = visitors()
    evil = lobby.replace("lobby-", "evil-")
    victim.page.route(  # the attacker's app: whatever its page is, it runs at that host
        f"{evil}/**", lambda route: route.fulfill(body="<h1>Free money</h1>", content_type="text/html")
    )
    victim.page.goto(f"{evil}/")
    parents = (lobby_host, lobby_host.partition(".")[2], f".{lobby_host.partition('.')[2]}")
    for domain in parents:
        victim.page.evaluate(
            "([value, domain]) => { document.cookie = `tower_session=${value}; Path=/; Domain=${domain}` }",
            [session, domain],
        )
    assert victim.context.cookies() == []
    victim.page.goto(f"{lobby}/hall")
    assert victim.page.url.startswith(f"{victim.tower.url}/signin")
