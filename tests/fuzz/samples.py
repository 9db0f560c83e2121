"""Inputs to begin with that have to be made: tokens and tickets that nearly hold, and bundles."""

from __future__ import annotations

import io
import tarfile

from tests.fuzz import targets

from tower.identity.principal import Ceiling, CredentialKind


def made(name: str) -> list[bytes]:
    """Those of one target."""
    makers = {"token": _tokens, "foreign": _tokens, "ticket": _tickets, "bundle": _bundles}
    return makers[name]() if name in makers else []


def _spoilt(text: str) -> bytes:
    """With another signature: as near to holding as anything that was not made here can be."""
    head, _, signature = text.rpartition(".")
    return f"{head}.{signature[::-1]}".encode()


def _tokens() -> list[bytes]:
    app, _ = targets.app_tokens().mint(
        subject="alice",
        app="p/d/n",
        before=(),
        parent_kind=CredentialKind.API_KEY,
        parent="k",
        root="k",
        ceilings=(Ceiling("key:k", role="viewer"),),
        life=300,
    )
    access, _ = targets.access_tokens().mint(
        issuer="tower", subject="alice", client="flyte", holder="login-1", scope="all", life=300
    )
    return [_spoilt(app), _spoilt(access), b"e30.e30.", b"eyJhbGciOiJub25lIn0.e30."]


def _tickets() -> list[bytes]:
    ticket, _ = targets.tickets().seal({"project": "p", "length": 1}, life=60)
    return [_spoilt(ticket)]


def _bundles() -> list[bytes]:
    """Without gzip: the target adds it, so that what is mutated is the tar itself."""
    found = []
    for name, kind in (
        ("a/b.py", tarfile.REGTYPE),
        ("../up.py", tarfile.REGTYPE),
        ("/etc/x", tarfile.REGTYPE),
        ("link", tarfile.SYMTYPE),
        ("hard", tarfile.LNKTYPE),
        ("fifo", tarfile.FIFOTYPE),
        ("n" * 300, tarfile.REGTYPE),
    ):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = (
                kind,
                "../../x" if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE} else "",
            )
            member.size = 3 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"x=1"))
        found.append(out.getvalue())
    return found
