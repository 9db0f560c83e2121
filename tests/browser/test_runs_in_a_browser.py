"""The page of a run moves by itself, shows what a task wrote as text, and ends the run by its button."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from playwright.sync_api import Route, expect
from tests.browser.visitor import Visitor
from tests.tower_process import Tower


def test_the_page_of_a_run_moves_by_itself(alice: Visitor, start: Callable[..., str]) -> None:
    alice.open(start("count", "--upto", "10"))
    alice.page.evaluate("window.untouched = true")
    expect(alice.field("State")).to_have_text("SUCCEEDED")
    expect(alice.log).to_contain_text("line 10 <b>of</b> 10\n")
    written = [line for line in alice.log.inner_text().splitlines() if not line.startswith("[image] ")]
    assert written == [f"line {number} <b>of</b> 10" for number in range(1, 11)]
    expect(alice.field("Asked for by")).to_have_text("alice")
    outputs = alice.page.locator("h2:text-is('Outputs') + dl pre")
    expect(outputs).to_contain_text("<i>counted</i>")
    assert alice.page.evaluate("window.untouched") is True, "the page was loaded anew"
    assert alice.page.get_by_role("button", name="Abort").count() == 0


def test_a_run_is_aborted_by_the_button_and_every_open_page_shows_it(
    alice: Visitor, visitors: Callable[[], Visitor], start: Callable[..., str]
) -> None:
    path = start("patient")
    alice.open(path)
    expect(alice.field("State")).to_have_text("RUNNING")
    expect(alice.log).to_contain_text("waiting\n")
    other = visitors()
    other.sign_in("alice")
    other.open(path)
    alice.press("Abort")
    for each in (alice, other):
        expect(each.field("State")).to_contain_text("ABORTED by alice")
        expect(each.page.get_by_role("button", name="Abort")).to_have_count(0)
        expect(each.log).to_contain_text("waiting\n")
    assert alice.at(path)


def test_the_grant_is_revoked_by_the_button_and_the_run_shows_that_it_ended(
    alice: Visitor, visitors: Callable[[], Visitor], start: Callable[..., str]
) -> None:
    path = start("patient")
    alice.open(path)
    expect(alice.log).to_contain_text("waiting\n")
    other = visitors()
    other.sign_in("alice")
    other.open(path)
    button = alice.page.get_by_role("button", name="Revoke the grant", exact=True)
    expect(button).to_be_hidden()  # until one says that one wants to
    alice.page.locator("details.grant summary").click()
    expect(alice.page.locator("details.grant")).to_contain_text("does nothing more in the name of alice")
    button.click()
    for each in (alice, other):
        expect(each.field("State")).to_contain_text("FAILED")
        expect(each.field("Grant")).to_have_text(re.compile(r"was revoked by alice\.$"))
        expect(each.page.locator("pre.wrong")).to_contain_text("was revoked by alice.")
        expect(each.page.locator("details.grant")).to_have_count(0)
        expect(each.page.get_by_role("button", name="Abort")).to_have_count(0)
    assert alice.at(path)


def test_what_is_opened_stays_open_when_the_run_changes(alice: Visitor, start: Callable[..., str]) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    alice.page.route("**/events*", hold)
    alice.open(start("patient"))
    alice.page.locator("details.grant summary").click()
    state = str(alice.page.locator("[data-events]").evaluate("each => each.innerHTML"))
    sent = state.replace(' open=""', "")  # the server does not know what is opened
    data = json.dumps(sent + '<p id="changed">It has changed.</p>')
    expect(alice.page.get_by_role("button", name="Revoke the grant", exact=True)).to_be_visible()
    held[0].fulfill(content_type="text/event-stream", body=f"event: state\ndata: {data}\n\n")
    expect(alice.page.locator("#changed")).to_be_visible()
    expect(alice.page.get_by_role("button", name="Revoke the grant", exact=True)).to_be_visible()
    alice.page.unroute("**/events*")
    alice.page.get_by_role("button", name="Abort").click()
    expect(alice.field("State")).to_contain_text("ABORTED")


def test_lists_lead_to_the_page(alice: Visitor, start: Callable[..., str]) -> None:
    path = start("count", "--upto", "1")
    alice.open("/")
    alice.page.get_by_role("link", name="My runs").click()
    alice.page.get_by_role("link", name=path.rpartition("/")[2]).click()
    assert alice.at(path)
    expect(alice.field("State")).to_have_text("SUCCEEDED")
    for title in ("Apps", "Triggers", "Runs"):
        alice.page.get_by_role("navigation").get_by_role("link", name=title, exact=True).click()
        expect(alice.page.get_by_role("heading", level=1)).to_contain_text(re.compile(f"^{title}"))


def test_a_page_of_somebody_else_is_like_one_that_is_not(
    visitors: Callable[[], Visitor], dave: str, start: Callable[..., str], town: Tower
) -> None:
    path = start("count", "--upto", "1")
    visitor = visitors()
    visitor.sign_in(dave)
    seen = set()
    for hidden in (path, path[:-3] + "zzz"):
        visitor.open(hidden)
        expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Not found")
        seen.add(visitor.page.content())
        visitor.expect((404, hidden))
    assert len(seen) == 1
    visitor.open("/")
    assert visitor.page.get_by_role("link", name=path.rpartition("/")[2]).count() == 0
