"""What a page of another site can do in the browser of somebody who is signed in: nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import expect
from tests.browser.visitor import Visitor

FORMS = {
    "/signout": "",
    "/device": "<input name=code value=BCDF-GHJK><input name=answer value=allow>",
    "/account": "<input name=current value=x><input name=new value=y><input name=again value=y>",
}


class Attack(BaseHTTPRequestHandler):
    """A page with one form that sends itself to the address in the query."""

    def do_GET(self) -> None:
        target = self.path.partition("?")[2]
        fields = next((html for path, html in FORMS.items() if target.endswith(path)), "")
        page = (
            f"<form method=post action='{target}'>{fields}</form><script>document.forms[0].submit()</script>"
        )
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where the pages of the other site are."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Attack) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("site", ["evil.localhost", "127.0.0.1"])
def test_the_forms_of_another_site_change_nothing(
    alice: Visitor, start: Callable[..., str], port: int, site: str
) -> None:
    """From another site, and from another port of the console's own host, which gets the cookie."""
    path = start("patient")
    for target in (*FORMS, f"{path}/abort", f"{path}/revoke"):
        alice.page.goto(f"http://{site}:{port}/?{alice.tower.url}{target}")
        expect(alice.page.get_by_role("heading", level=1)).to_have_text("That did not work")
        expect(alice.page.get_by_role("main")).to_contain_text("Another site made this request.")
        alice.expect((403, target))
    alice.open(path)
    expect(alice.field("State")).to_have_text("RUNNING")
    expect(alice.page.locator("header .who")).to_have_text("alice")
    alice.press("Abort")
    expect(alice.field("State")).to_contain_text("ABORTED")


def test_a_link_of_another_site_asks_before_it_signs_anybody_in(
    visitors: Callable[[], Visitor], port: int
) -> None:
    visitor = visitors()
    link = visitor.tower.tower("users", "link", "bob").out.strip()
    visitor.page.goto(f"http://evil.localhost:{port}/?{visitor.tower.url}/none")
    visitor.refused.clear()
    visitor.page.goto(f"http://evil.localhost:{port}/?http://evil.localhost:{port}/")
    visitor.refused.clear()
    visitor.page.evaluate("link => { location.href = link }", link)
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Sign in to Tower?")
    assert not any(each["name"] == "tower_session" for each in visitor.context.cookies())
    visitor.press("Sign in")
    expect(visitor.page.locator("header .who")).to_have_text("bob")
    assert visitor.at("/")
