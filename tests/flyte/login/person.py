"""A person with a browser, scripted: signs in with a password and presses the buttons of pages."""

from __future__ import annotations

import re
import ssl
import subprocess
from html import unescape
from pathlib import Path
from typing import Self
from urllib.parse import urljoin

import httpx
from tests.tower_process import BIN, Tower, clean_environment

PASSWORD = "rain falls on the old harbour"


def give_password(tower: Tower, name: str) -> None:
    """What the machine's operator does, once per person."""
    done = subprocess.run(
        [BIN / "tower", "users", "password", name, "--stdin"],
        env=clean_environment({"TOWER_HOME": str(tower.home)}),
        input=f"{PASSWORD}\n",
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert PASSWORD not in done.stdout + done.stderr


class Browser:
    """Keeps cookies and sends what a browser sends with a form of the same origin."""

    def __init__(self, url: str, ca: Path | None = None) -> None:
        self.url = url
        self.http = httpx.Client(
            base_url=url,
            verify=ssl.create_default_context(cafile=ca) if ca else True,
            trust_env=False,
            timeout=120.0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def submit(self, path: str, **fields: str) -> httpx.Response:
        headers = {"origin": self.url, "sec-fetch-site": "same-origin"}
        return self.http.post(path, data=fields, headers=headers)

    def sign_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        answer = self.submit("/login", name=name, password=password, next="/")
        assert answer.status_code == 200, answer.text
        return answer

    def page(self, url: str) -> httpx.Response:
        return self.http.get(urljoin(self.url, url))

    def press(self, page: httpx.Response, answer: str) -> httpx.Response:
        """Press a button of the page's form."""
        found = re.search(
            r'<form method="post" action="([^"]+)">(.*?)</form>', page.text.split("<main>")[1], re.DOTALL
        )
        assert found is not None, page.text
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', found[2])
        fields = {name: unescape(value) for name, value in hidden}
        return self.submit(unescape(found[1]), **fields, answer=answer)
