"""Signing in to a real Tower at a real provider: the whole way, and each way of getting it wrong (T41)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import httpx
import pytest
from tests.files import contents
from tests.idp.running import TOWER_SECRET, Idp, browser, sign_in
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("idp")

CONFIG = """
[oidc.corp]
issuer = "{corp}"
label = "Example Corp"
client_id = "tower"
client_secret_file = "corp.secret"
scopes = ["openid", "profile", "email", "groups"]
groups_claim = "groups"

[[oidc.corp.roles]]
group = "makers"
role = "viewer"
project = "flytesnacks"

[oidc.edge]
issuer = "{edge}"
client_id = "tower"
client_secret_file = "corp.secret"
subject = "email"
email_domains = ["example.com"]

[oidc.labs]
issuer = "{labs}"
audiences = ["https://tower.test/api"]
"""


@dataclass(slots=True)
class Gate:
    """A Tower whose sign-in page offers two of three issuers."""

    tower: Tower
    idp: Idp

    def begin(self, visitor: httpx.Client, alias: str = "corp", following: str = "/v2/apps") -> str:
        """Press the button; where the browser is sent."""
        answer = visitor.get(f"{self.tower.url}/signin/with/{alias}?next={quote(following, safe='')}")
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    def back(self, visitor: httpx.Client, name: str, alias: str = "corp", following: str = "/v2/apps") -> str:
        """The address that the provider sends the browser back to, once this person signed in."""
        return sign_in(visitor, self.begin(visitor, alias, following), name, until=self.tower.url)

    def enter(
        self, visitor: httpx.Client, name: str, alias: str = "corp", following: str = "/v2/apps"
    ) -> httpx.Response:
        return visitor.get(self.back(visitor, name, alias, following))

    def who(self, visitor: httpx.Client) -> str:
        """Whom the browser's session names, "" for nobody."""
        answer = visitor.get(f"{self.tower.url}/v2/apps")
        return answer.text.partition('class="who">')[2].partition("<")[0] if answer.is_success else ""


@pytest.fixture(scope="module")
def gate(idp: Idp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    home = tmp_path_factory.mktemp("gate") / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text(CONFIG.format(**idp.urls))
    (home / "corp.secret").touch(mode=0o600)
    (home / "corp.secret").write_text(TOWER_SECRET)
    with Tower.started(home) as tower:
        yield Gate(tower, idp)


def changed(url: str, **fields: str | None) -> str:
    """The address with other fields in its query; None leaves one out."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    query |= {name: value for name, value in fields.items() if value is not None}
    kept = {name: value for name, value in query.items() if fields.get(name, "") is not None}
    return parts._replace(query=urlencode(kept)).geturl()


def test_the_sign_in_page_offers_a_button_for_each_issuer_with_a_client(gate: Gate) -> None:
    with browser() as visitor:
        shown = visitor.get(f"{gate.tower.url}/signin?next=/v2/apps").text

    assert "Sign in with Example Corp" in shown
    assert "/signin/with/corp?next=/v2/apps" in shown
    assert "/signin/with/edge" in shown
    assert "labs" not in shown


def test_the_whole_way_opens_a_session_and_goes_on_to_the_page_that_was_wanted(gate: Gate) -> None:
    with browser() as visitor:
        answer = gate.enter(visitor, "alice", following="/v2/apps?x=1")

        assert (answer.status_code, answer.headers["location"]) == (303, "/v2/apps?x=1")
        assert gate.who(visitor) == "corp|alice"
        cookies = [
            value for value in answer.headers.get_list("set-cookie") if value.startswith("tower_session=")
        ]
        assert len(cookies) == 1
        assert "HttpOnly" in cookies[0]

    roles = gate.tower.tower("users", "list", "-o", "json").json()
    assert any(person["name"] == "corp|alice" and person["kind"] == "user" for person in roles)  # type: ignore[attr-defined]


def test_the_request_to_the_provider_binds_the_browser_and_the_code(gate: Gate) -> None:
    with browser() as visitor:
        query = parse_qs(urlsplit(gate.begin(visitor)).query)
        again = parse_qs(urlsplit(gate.begin(visitor)).query)

    assert query["response_type"] == ["code"]
    assert query["code_challenge_method"] == ["S256"]
    assert query["redirect_uri"] == [f"{gate.tower.url}/signin/with/corp/callback"]
    for name in ("state", "nonce", "code_challenge"):
        assert len(query[name][0]) == 43
        assert query[name] != again[name]
    assert len({query[name][0] for name in ("state", "nonce", "code_challenge")}) == 3


def test_groups_of_the_provider_give_roles(gate: Gate) -> None:
    def roles(name: str) -> str:
        with browser() as visitor:
            gate.enter(visitor, name)
            return str(visitor.get(f"{gate.tower.url}/api/v1/whoami").json()["roles"])

    assert "viewer" in roles("alice")
    assert "viewer" not in roles("bob")


def test_t41_an_answer_that_another_browser_got_signs_nobody_in(gate: Gate) -> None:
    with browser() as attacker, browser() as victim:
        back = gate.back(attacker, "bob")
        without = victim.get(back)
        gate.begin(victim)
        with_own_flow = victim.get(back)

        assert (without.status_code, with_own_flow.status_code) == (401, 401)
        assert gate.who(victim) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"state": "A" * 43},
        {"state": ""},
        {"state": None},
        {"iss": "http://127.0.0.1:9"},
        {"iss": None},
        {"code": "x"},
        {"code": None},
        {"error": "access_denied"},
    ],
    ids=str,
)
def test_t41_no_state_a_foreign_one_or_another_issuer_signs_nobody_in(
    gate: Gate, change: dict[str, str | None]
) -> None:
    with browser() as visitor:
        answer = visitor.get(changed(gate.back(visitor, "bob"), **change))

        assert answer.status_code == 401
        assert gate.who(visitor) == ""


def test_t41_an_answer_with_a_field_twice_is_refused(gate: Gate) -> None:
    with browser() as visitor:
        back = gate.back(visitor, "bob")

        assert visitor.get(f"{back}&state=x").status_code == 400
        assert gate.who(visitor) == ""


def test_t41_the_answer_of_one_issuer_is_no_answer_of_another(gate: Gate) -> None:
    with browser() as visitor:
        back = gate.back(visitor, "alice")
        gate.begin(visitor, "edge")

        assert visitor.get(back.replace("/with/corp/", "/with/edge/")).status_code == 401


def test_t41_a_code_that_comes_again_signs_nobody_in(gate: Gate) -> None:
    with browser() as visitor:
        back = gate.back(visitor, "bob")
        flow = visitor.cookies["tower_oidc"]
        assert visitor.get(back).status_code == 303
        visitor.cookies.clear()
        visitor.cookies.set("tower_oidc", flow, domain="127.0.0.1")

        assert visitor.get(back).status_code == 401


def test_t41_an_id_token_of_another_sign_in_is_not_taken(gate: Gate) -> None:
    """The provider was asked with another nonce than the browser's own: its answer is for somebody else."""
    with browser() as visitor:
        asked = changed(gate.begin(visitor), nonce="B" * 43)
        answer = visitor.get(sign_in(visitor, asked, "alice", until=gate.tower.url))

        assert answer.status_code == 401
        assert gate.who(visitor) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge": "C" * 43},
        {"code_challenge": "C" * 43, "code_challenge_method": "plain"},
    ],
    ids=["without", "another", "plain"],
)
def test_t41_proof_of_possession_is_not_bargained_away(gate: Gate, change: dict[str, str | None]) -> None:
    """Whoever takes the challenge out of the request, or puts theirs in, gets no session out of the code."""
    with browser() as visitor:
        asked = changed(gate.begin(visitor), **change)
        try:
            answer = visitor.get(sign_in(visitor, asked, "alice", until=gate.tower.url))
        except AssertionError:  # the provider itself refused to go on
            answer = visitor.get(f"{gate.tower.url}/v2/apps")

        assert answer.status_code in {303, 401}
        assert gate.who(visitor) == ""


def test_t41_the_code_of_somebody_else_does_not_fit_ones_own_flow(gate: Gate) -> None:
    """A victim's browser with a flow of its own, the attacker's code: nobody is signed in as the attacker."""
    with browser() as attacker, browser() as victim:
        theirs = parse_qs(urlsplit(gate.back(attacker, "bob")).query)["code"][0]
        answer = victim.get(changed(gate.back(victim, "alice"), code=theirs))

        assert answer.status_code == 401
        assert gate.who(victim) == ""


@pytest.mark.parametrize(
    "following",
    ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "/signin"],
)
def test_t41_nobody_is_sent_to_another_site_afterwards(gate: Gate, following: str) -> None:
    with browser() as visitor:
        assert gate.enter(visitor, "bob", following=following).headers["location"] == "/"


def test_a_disabled_person_stays_out(gate: Gate) -> None:
    with browser() as visitor:
        gate.enter(visitor, "carol")
        assert gate.who(visitor) == "corp|carol"

        gate.tower.tower("users", "disable", "corp|carol")
        assert gate.who(visitor) == ""
        again = gate.enter(visitor, "carol")

    assert again.status_code == 401
    assert "disabled" in again.text


def test_an_address_names_a_person_only_when_it_is_verified_and_of_an_allowed_domain(gate: Gate) -> None:
    with browser() as visitor:
        gate.enter(visitor, "alice", "edge")
        assert gate.who(visitor) == "alice@example.com"
    for name in ("mallory", "eve"):
        with browser() as visitor:
            assert gate.enter(visitor, name, "edge").status_code == 401
            assert gate.who(visitor) == ""


def test_issuers_that_offer_no_sign_in_have_no_page(gate: Gate) -> None:
    with browser() as visitor:
        for alias in ("labs", "nobody", "..%2Fcorp"):
            assert visitor.get(f"{gate.tower.url}/signin/with/{alias}").status_code == 404


def test_looking_at_an_address_uses_up_nothing(gate: Gate) -> None:
    with browser() as visitor:
        back = gate.back(visitor, "bob")
        visitor.head(back)

        assert visitor.get(back).status_code == 303


def test_the_secret_of_the_client_stands_nowhere_else(gate: Gate) -> None:
    arguments = Path(f"/proc/{gate.tower.process.pid}/cmdline").read_bytes()
    environment = Path(f"/proc/{gate.tower.process.pid}/environ").read_bytes()

    assert TOWER_SECRET not in gate.tower.log
    assert TOWER_SECRET.encode() not in arguments + environment
    found = [path for path, text in contents(gate.tower.home) if TOWER_SECRET.encode() in text]
    assert [path.name for path in found] == ["corp.secret"]
