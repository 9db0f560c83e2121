"""A person in front of a real browser: what they do, and everything that the browser complains about."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Locator, Page, Request, Response
from tests.flyte.login.person import PASSWORD
from tests.tower_process import Tower

# A page that is left takes its stream of events along, and a redirect takes the first request.
LEFT = "net::ERR_ABORTED"


@dataclass
class Visitor:
    """One browser profile: cookies of its own."""

    tower: Tower
    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    """Answers of status 400 and above: the status and the path."""

    @classmethod
    def of(cls, tower: Tower, context: BrowserContext) -> Visitor:
        visitor = cls(tower, context, context.new_page())
        context.on("console", lambda message: visitor._said(message.type, message.text))
        context.on("weberror", lambda error: visitor.complaints.append(f"script: {error.error}"))
        context.on("response", visitor._answered)
        context.on("requestfailed", visitor._failed)
        return visitor

    def open(self, path: str) -> Response:
        """Open a page of the console."""
        answer = self.page.goto(self.tower.url + path)
        assert answer is not None
        return answer

    def sign_in(self, name: str, password: str = PASSWORD) -> None:
        """By the form, and on to where they wanted to go."""
        self.try_to_sign_in(name, password)
        self.page.wait_for_url(lambda url: urlsplit(url).path not in {"/signin", "/login", "/apps-login"})

    def try_to_sign_in(self, name: str, password: str) -> None:
        """Send the form, from wherever they are sent to it."""
        if not self.page.get_by_label("Password").count():
            self.open("/signin")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.press("Sign in")

    def press(self, button: str) -> None:
        """Press a button of the page."""
        self.page.get_by_role("button", name=button, exact=True).click()

    def at(self, path: str) -> bool:
        """Whether the page shown is the console's of this path."""
        return self.page.url.startswith(self.tower.url) and urlsplit(self.page.url).path == path

    def field(self, title: str) -> Locator:
        """What a page says under this title."""
        return self.page.locator(f"dt:text-is({title!r}) + dd")

    @property
    def log(self) -> Locator:
        """The log on a page."""
        return self.page.locator("#log")

    def expect(self, *refused: tuple[int, str]) -> None:
        """These refusals, and no others, are what was asked for."""
        assert sorted(self.refused) == sorted(refused)
        self.refused.clear()

    def _said(self, kind: str, text: str) -> None:
        # a status is told by the answer, too, and there with its path
        if kind in {"error", "warning"} and not text.startswith("Failed to load resource"):
            self.complaints.append(f"{kind}: {text}")

    def _answered(self, answer: Response) -> None:
        if answer.status >= 400:
            self.refused.append((answer.status, urlsplit(answer.url).path))

    def _failed(self, request: Request) -> None:
        if request.failure != LEFT:
            self.complaints.append(f"{request.url}: {request.failure}")
