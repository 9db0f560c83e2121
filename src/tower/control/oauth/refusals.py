"""What the OAuth server says no with: an error code of the RFCs and a sentence for people."""

from __future__ import annotations


class Refusal(Exception):
    """`error` as in RFC 6749 section 5.2 and 4.1.2.1, RFC 8628 section 3.5 or RFC 8693 section 2.2.2."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status


def invalid_client() -> Refusal:
    """One answer for every wrong client: unknown, deleted, expired, wrong secret, disabled (RFC 6749 5.2)."""
    return Refusal("invalid_client", "The client could not be authenticated.", status=401)


def invalid_grant(what: str) -> Refusal:
    """The code, device code or refresh token does not hold."""
    return Refusal("invalid_grant", f"The {what} does not hold. Sign in again.")


def invalid_scope() -> Refusal:
    """A scope that is not known, or more than was given."""
    return Refusal("invalid_scope", "A scope is not known, or goes beyond what was given.")
