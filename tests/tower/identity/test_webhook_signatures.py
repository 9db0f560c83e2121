"""The four ways in which third parties sign, by the examples that they publish, and their edges (T48)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tower.errors import Unauthenticated
from tower.identity.webhooks import WINDOW_SECONDS, Scheme, check_secret, read, sender, verify

NOW = 1_800_000_000.0
SECRET = b"a secret that is long enough"


def headers(**fields: str) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.replace("_", "-").encode(), value.encode()) for name, value in fields.items())


def sign(secret: bytes, content: bytes) -> str:
    return hmac.new(secret, content, hashlib.sha256).hexdigest()


def signed(scheme: Scheme, body: bytes, *, secret: bytes = SECRET, at: float = NOW, name: str = "d1"):  # type: ignore[no-untyped-def]
    """The headers of a genuine delivery."""
    time = str(int(at))
    match scheme:
        case Scheme.GITHUB:
            return headers(x_github_delivery=name, x_hub_signature_256=f"sha256={sign(secret, body)}")
        case Scheme.SLACK:
            content = f"v0:{time}:".encode() + body
            return headers(x_slack_request_timestamp=time, x_slack_signature=f"v0={sign(secret, content)}")
        case Scheme.STANDARD:
            digest = hmac.digest(secret, f"{name}.{time}.".encode() + body, "sha256")
            value = f"v1,{base64.b64encode(digest).decode()}"
            return headers(webhook_id=name, webhook_timestamp=time, webhook_signature=value)
        case Scheme.HMAC:
            content = f"{time}.".encode() + body
            return headers(x_webhook_timestamp=time, x_webhook_signature=f"sha256={sign(secret, content)}")


def check(
    scheme: Scheme, sent: tuple[tuple[bytes, bytes], ...], body: bytes, *, now: float = NOW
) -> tuple[bytes, ...]:
    return verify(read(scheme, sent, now=now), SECRET, body)


def test_the_example_of_github() -> None:
    sent = headers(
        x_github_delivery="72d3162e-cc78-11e3-81ab-4c9367dc0958",
        x_hub_signature_256="sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    )

    assert verify(read(Scheme.GITHUB, sent, now=NOW), b"It's a Secret to Everybody", b"Hello, World!")


def test_the_example_of_slack() -> None:
    sent = headers(
        x_slack_request_timestamp="1531420618",
        x_slack_signature="v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    )
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )

    assert verify(read(Scheme.SLACK, sent, now=1531420618.0), b"8f742231b10e8888abcd99yyyzzz85a5", body)
    assert sender(Scheme.SLACK, body) == "T1DC2JH3J/U2CERLKJA"


def test_the_example_of_standard_webhooks() -> None:
    sent = headers(
        webhook_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        webhook_timestamp="1614265330",
        webhook_signature="v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    )

    assert verify(
        read(Scheme.STANDARD, sent, now=1614265330.0),
        b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        b'{"test": 2432232314}',
    )


@pytest.mark.parametrize("scheme", Scheme)
@given(body=st.binary(max_size=200), spoiled=st.binary(min_size=1, max_size=20))
def test_only_the_very_body_that_was_signed_is_accepted(scheme: Scheme, body: bytes, spoiled: bytes) -> None:
    sent = signed(scheme, body)

    assert check(scheme, sent, body)
    with pytest.raises(Unauthenticated):
        check(scheme, sent, body + spoiled)
    with pytest.raises(Unauthenticated):
        verify(read(scheme, sent, now=NOW), b"x" + spoiled + SECRET, body)


@pytest.mark.parametrize("scheme", Scheme)
def test_a_header_that_is_missing_twice_there_or_malformed_is_refused(scheme: Scheme) -> None:
    sent = signed(scheme, b"{}")
    for index, (name, value) in enumerate(sent):
        rest = sent[:index] + sent[index + 1 :]
        for spoiled in (rest, (*sent, (name, value)), (*rest, (name, b"")), (*rest, (name, value[:-2]))):
            with pytest.raises(Unauthenticated):
                check(scheme, spoiled, b"{}")


@pytest.mark.parametrize("scheme", [Scheme.SLACK, Scheme.STANDARD, Scheme.HMAC])
def test_a_signed_time_holds_for_five_minutes_both_ways(scheme: Scheme) -> None:
    for age in (0, WINDOW_SECONDS, -WINDOW_SECONDS):
        assert check(scheme, signed(scheme, b"x", at=NOW - age), b"x")
    for age in (WINDOW_SECONDS + 1, -WINDOW_SECONDS - 1):
        with pytest.raises(Unauthenticated):
            check(scheme, signed(scheme, b"x", at=NOW - age), b"x")


@pytest.mark.parametrize("scheme", [Scheme.SLACK, Scheme.STANDARD, Scheme.HMAC])
def test_a_fresh_time_on_an_old_signature_is_refused(scheme: Scheme) -> None:
    old = dict(signed(scheme, b"x", at=NOW - 3600))
    name = next(each for each in old if each.endswith(b"timestamp"))

    with pytest.raises(Unauthenticated):
        check(scheme, tuple({**old, name: str(int(NOW)).encode()}.items()), b"x")


def test_what_github_sends_twice_is_known_by_body_and_by_number() -> None:
    first = set(check(Scheme.GITHUB, signed(Scheme.GITHUB, b"x", name="1"), b"x"))
    same_body = set(check(Scheme.GITHUB, signed(Scheme.GITHUB, b"x", name="2"), b"x"))
    same_number = set(check(Scheme.GITHUB, signed(Scheme.GITHUB, b"y", name="1"), b"y"))
    other = set(check(Scheme.GITHUB, signed(Scheme.GITHUB, b"z", name="3"), b"z"))

    assert first & same_body
    assert first & same_number
    assert not first & other


def test_standard_webhooks_may_be_signed_with_two_secrets_at_once() -> None:
    sent = dict(signed(Scheme.STANDARD, b"x"))
    other = base64.b64encode(b"0" * 32)
    both = {**sent, b"webhook-signature": b"v1," + other + b" v1a,x " + sent[b"webhook-signature"]}

    assert check(Scheme.STANDARD, tuple(both.items()), b"x")


@pytest.mark.parametrize(
    ("scheme", "body", "name"),
    [
        (Scheme.GITHUB, {"sender": {"id": 583231, "login": "octocat"}}, "583231"),
        (Scheme.GITHUB, {"sender": {"id": True}}, ""),
        (Scheme.GITHUB, {"sender": "583231"}, ""),
        (Scheme.GITHUB, [], ""),
        (Scheme.SLACK, {"team_id": "T1", "event": {"user": "U1"}}, "T1/U1"),
        (Scheme.SLACK, {"team": {"id": "T1"}, "user": {"id": "U2"}}, "T1/U2"),
        (Scheme.SLACK, {"event": {"user": "U1"}}, ""),
        (Scheme.HMAC, {"sender": "billing"}, "billing"),
        (Scheme.STANDARD, {"sender": "x" * 201}, ""),
    ],
)
def test_the_sender_is_what_the_third_party_says(scheme: Scheme, body: object, name: str) -> None:
    assert sender(scheme, json.dumps(body).encode()) == name


@given(st.binary(max_size=300))
def test_any_body_has_a_sender_or_none(body: bytes) -> None:
    for scheme in Scheme:
        assert isinstance(sender(scheme, body), str)


@pytest.mark.parametrize(
    "secret", ["short", "whsec_c2hvcnQ=" + "=" * 8, "x" * 2000, "new\nline in a long secret"]
)
def test_a_weak_or_malformed_secret_is_not_taken(secret: str) -> None:
    with pytest.raises(ValueError, match=r"printable|behind whsec_"):
        check_secret(Scheme.STANDARD, secret)
