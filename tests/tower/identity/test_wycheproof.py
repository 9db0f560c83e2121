"""The verifier of foreign signatures against the JWS and JWK vectors of project Wycheproof (C2SP)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tower.errors import Broken, Unauthenticated
from tower.identity.jose import KeySet

FOLDER = Path(__file__).resolve().parents[3].parent / "shared" / "vectors" / "wycheproof"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the vectors are not at {FOLDER}")

QUIRKS = {
    346: "valid is expected, but the key says alg PS256 of itself and the token is signed with RS256",
    347: "valid is expected, but the key says alg ES521, which is no algorithm at all",
    350: "as 346, with key_ops in place of use",
    351: "as 347, with key_ops in place of use",
    367: "invalid is expected, but the token is byte for byte the one of 357, which is expected to be valid",
    370: "as 367",
    372: "valid is expected, but the header holds a character that is none of base64url",
    373: "valid is expected, but the payload holds a character that is none of base64url",
}
"""Vectors whose expectation a strict verifier does not meet, each with the reason."""


def verdict(group: dict[str, Any], test: dict[str, Any]) -> str:
    document = group.get("public") or group["private"]
    if "keys" not in document:
        document = {"keys": [document]}
    named = {key["alg"] for key in document["keys"] if "alg" in key}
    try:
        KeySet.read(document, algorithms=named or {"RS256"}).verify(test["jws"])
    except (Unauthenticated, Broken):
        return "invalid"
    return "valid"


def vectors(name: str) -> dict[int, tuple[str, str, str]]:
    """Of each test its expectation, Tower's verdict and the token."""
    if not FOLDER.is_dir():
        return {}
    groups = json.loads((FOLDER / name).read_text())["testGroups"]
    return {
        test["tcId"]: (test["result"], verdict(group, test), test["jws"])
        for group in groups
        for test in group["tests"]
    }


def test_signatures_agree_but_for_the_quirks() -> None:
    found = vectors("json_web_signature_test.json")
    agreed = {number for number, (expected, got, _) in found.items() if expected == got}

    assert len(found) == 401
    assert len(agreed) == 393
    assert found.keys() - agreed == QUIRKS.keys()


def test_nothing_invalid_is_accepted() -> None:
    found = vectors("json_web_signature_test.json")
    accepted = {
        number for number, (expected, got, _) in found.items() if (expected, got) == ("invalid", "valid")
    }

    # the only two are the very bytes of a vector that has to be accepted
    assert accepted == {367, 370}
    assert found[367][2] == found[370][2] == found[357][2]
    assert found[357][0] == "valid"


def test_every_other_quirk_is_a_refusal() -> None:
    found = vectors("json_web_signature_test.json")

    assert all(found[number][1] == "invalid" for number in QUIRKS.keys() - {367, 370})


def test_key_sets_agree_without_exception() -> None:
    found = vectors("json_web_key_test.json")

    assert len(found) == 26
    assert {number: got for number, (expected, got, _) in found.items() if expected != got} == {}
