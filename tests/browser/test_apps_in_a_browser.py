"""The page of an app, and the app itself at a host of its own: one sign-in for both, one sign-out."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect
from tests.browser.visitor import Visitor

PAGE = "/v2/domain/development/project/flytesnacks/apps/lobby"


def test_the_page_of_an_app_shows_its_state_and_its_log(alice: Visitor, lobby: str) -> None:
    alice.open("/v2/apps")
    alice.page.get_by_role("link", name="lobby", exact=True).click()
    assert alice.at(PAGE)
    expect(alice.field("State")).to_contain_text("ACTIVE")
    expect(alice.field("Address")).to_contain_text(lobby)
    expect(alice.log).to_contain_text("the lobby is open")


def test_an_app_opens_at_its_host_for_who_is_signed_in_and_their_forms_work(
    alice: Visitor, lobby: str
) -> None:
    alice.page.goto(f"{lobby}/hall?door=1")
    assert alice.page.url == f"{lobby}/hall?door=1"
    expect(alice.page.locator("#who")).to_have_text("alice in hall")
    alice.press("Ring")
    expect(alice.page.locator("#who")).to_have_text("alice rang")
    # the app's host has a session of its own, which opens nothing at the console
    names = {(each["domain"], each["name"]) for each in alice.context.cookies()}
    assert (lobby.split("/")[2].partition(":")[0], "tower_session") in names


def test_who_is_not_signed_in_gets_to_the_app_by_way_of_the_sign_in(
    visitors: Callable[[], Visitor], lobby: str
) -> None:
    visitor = visitors()
    visitor.page.goto(f"{lobby}/hall")
    assert visitor.page.url.startswith(f"{visitor.tower.url}/signin")
    visitor.sign_in("bob")
    expect(visitor.page.locator("#who")).to_have_text("bob in hall")
    assert visitor.page.url == f"{lobby}/hall"


def test_signing_out_of_the_console_ends_the_session_at_the_app(alice: Visitor, lobby: str) -> None:
    alice.page.goto(f"{lobby}/hall")
    expect(alice.page.locator("#who")).to_have_text("alice in hall")
    alice.open("/")
    alice.press("Sign out")
    alice.page.wait_for_url(f"{alice.tower.url}/signin")
    alice.page.goto(f"{lobby}/hall")
    assert alice.page.url.startswith(f"{alice.tower.url}/signin")


def test_who_may_not_use_an_app_learns_nothing_of_it(
    visitors: Callable[[], Visitor], dave: str, lobby: str
) -> None:
    visitor = visitors()
    visitor.sign_in(dave)
    visitor.open(PAGE)
    visitor.page.goto(f"{lobby}/hall")
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Not found")
    visitor.expect((404, PAGE), (404, "/apps-login"))
