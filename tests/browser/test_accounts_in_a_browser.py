"""A device confirmed by its code, a terminal signed in through the browser, and one's password changed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect
from tests.browser.visitor import Visitor
from tests.flyte.login.conftest import Terminal
from tests.flyte.login.person import PASSWORD, give_password
from tests.flyte.login.test_login_commands import address
from tests.tower_process import Tower


@pytest.mark.parametrize(("answer", "status"), [("Allow", 0), ("Refuse", 3)])
def test_a_device_waits_for_the_answer_on_the_page(
    alice: Visitor, terminal: Terminal, answer: str, status: int
) -> None:
    with terminal.begun("login", "--device") as process:
        assert process.stderr is not None
        code = next(found[0] for line in process.stderr if (found := re.search(r"[A-Z]{4}-[A-Z]{4}", line)))
        alice.open("/device")
        alice.page.get_by_label("Code").fill(code.lower())
        alice.press("Go on")
        expect(alice.field("Code")).to_have_text(code)
        alice.press(answer)
        expect(alice.page.get_by_role("heading", level=1)).to_have_text(f"{answer.rstrip('e')}ed")
    assert process.returncode == status
    if status == 0:
        assert "alice" in terminal("whoami").stdout


def test_a_wrong_code_is_answered_on_the_page(alice: Visitor) -> None:
    alice.open("/device")
    alice.page.get_by_label("Code").fill("BCDF-GHJK")
    alice.press("Go on")
    expect(alice.page.locator("p.wrong")).to_be_visible()
    alice.expect((404, "/device"))


def test_flyte_login_ends_in_the_browser_and_in_the_terminal(
    visitors: Callable[[], Visitor], terminal: Terminal
) -> None:
    visitor = visitors()
    with terminal.begun("login") as process:
        visitor.page.goto(address(process))
        visitor.sign_in("bob")
        visitor.press("Allow")
        expect(visitor.page.get_by_text("close this page")).to_be_visible()
    assert process.returncode == 0
    assert "bob" in terminal("whoami").stdout


def test_a_password_is_changed_by_who_knows_it(visitors: Callable[[], Visitor], town: Tower) -> None:
    town.tower("users", "add", "erin")
    give_password(town, "erin")
    here, elsewhere = visitors(), visitors()
    for each in (here, elsewhere):
        each.sign_in("erin")
    here.page.get_by_role("link", name="erin").click()
    for current, again, told in (
        ("not it", "a new and longer one", "wrong"),
        (PASSWORD, "another", "not the same"),
        (PASSWORD, "a new and longer one", "was changed"),
    ):
        here.page.get_by_label("Current password").fill(current)
        here.page.get_by_label("New password").fill("a new and longer one")
        here.page.get_by_label("Once more").fill(again)
        here.press("Change it")
        expect(here.page.get_by_role("main")).to_contain_text(told)
    here.expect((401, "/account"), (400, "/account"))
    elsewhere.open("/")
    assert elsewhere.at("/signin"), "the other session of the same person went on"
    elsewhere.try_to_sign_in("erin", PASSWORD)
    expect(elsewhere.page.locator("p.wrong")).to_be_visible()
    elsewhere.expect((401, "/login"))
    elsewhere.sign_in("erin", "a new and longer one")
    expect(elsewhere.page.locator("header .who")).to_have_text("erin")
