"""Signing in and out as a person does it: by password, by a link, on a page that was wanted."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect
from tests.browser.visitor import Visitor
from tests.tower_process import Tower


def test_who_is_sent_to_sign_in_comes_back_to_the_page_they_wanted(
    visitors: Callable[[], Visitor],
) -> None:
    visitor = visitors()
    visitor.open("/v2/apps")
    visitor.try_to_sign_in("alice", "not her password")
    expect(visitor.page.locator("p.wrong")).to_be_visible()
    visitor.expect((401, "/login"))
    visitor.sign_in("alice")
    visitor.page.wait_for_url(f"{visitor.tower.url}/v2/apps")
    expect(visitor.page.locator("header .who")).to_have_text("alice")


def test_a_link_signs_in_once(visitors: Callable[[], Visitor], town: Tower) -> None:
    link = town.tower("users", "link", "bob").out.strip()
    first, second, third = visitors(), visitors(), visitors()
    first.page.goto(link)
    expect(first.page.locator("header .who")).to_have_text("bob")
    second.page.goto(link)
    assert second.at("/signin") or second.refused, second.page.url
    second.refused.clear()
    assert second.context.cookies() == [] or "tower_session" not in {
        each["name"] for each in second.context.cookies() if each["value"]
    }
    third.open("/signin")
    third.page.get_by_label("Link or code").fill(town.tower("users", "link", "bob").out.strip())
    third.press("Use the link")
    third.page.wait_for_url(f"{town.url}/")
    expect(third.page.locator("header .who")).to_have_text("bob")


def test_signing_out_ends_the_session_and_not_only_the_cookie(alice: Visitor) -> None:
    kept = alice.context.cookies()
    assert any(each["name"] == "tower_session" and each["httpOnly"] for each in kept)
    alice.press("Sign out")
    alice.page.wait_for_url(f"{alice.tower.url}/signin")
    alice.context.add_cookies(kept)  # type: ignore[arg-type]  # what it gives is what it takes
    alice.open("/")
    assert alice.at("/signin")
