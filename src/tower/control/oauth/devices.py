"""The device grant (RFC 8628): a terminal without a browser shows a code, a person confirms it elsewhere."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from tower.audit import Event, Outcome
from tower.clock import Clock
from tower.control.access import Access
from tower.control.oauth.authorisations import check_person
from tower.control.oauth.issuing import KEEP_SECONDS, Issued, Issuing, Opening, digest
from tower.control.oauth.refusals import Refusal, invalid_grant, invalid_scope
from tower.errors import Exhausted, NotFound, Precondition
from tower.identity import clients
from tower.identity.attempts import Attempts, Rate
from tower.identity.clients import Scope
from tower.identity.principal import Principal
from tower.settings import Settings
from tower.store import identities, oauth
from tower.store.database import Database, Transaction
from tower.store.oauth import DeviceRow

PACE_SECONDS = 5.0
SLOWER_SECONDS = 5.0
MAX_WAITING = 2000

_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 section 6.1: no vowels, nothing to misread
_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the device gets: a secret to poll with, and a code to show."""

    device_code: str = field(repr=False)
    user_code: str
    expires_in: int
    interval: int


class Devices:
    """The use-cases of the device authorisation endpoint, its confirmation page and its grant."""

    def __init__(
        self, *, db: Database, clock: Clock, access: Access, issuing: Issuing, settings: Settings
    ) -> None:
        self._db = db
        self._clock = clock
        self._access = access
        self._issuing = issuing
        self._settings = settings
        self._guesses = Attempts(
            clock=clock, account=Rate(burst=10, seconds=60.0), source=Rate(burst=30, seconds=20.0)
        )
        self._asking = Attempts(
            clock=clock, account=Rate(burst=60, seconds=10.0), source=Rate(burst=60, seconds=10.0)
        )

    async def begin(self, *, client: str, scope: str, device: str, place: str) -> Waiting:
        """Let a device wait for an answer (RFC 8628 section 3.2). Raises Refusal, Exhausted."""
        if client != clients.PUBLIC:
            raise Refusal("invalid_client", "There is no such client.", status=401)
        wanted = Scope.read(scope)
        if wanted is None:
            raise invalid_scope()
        self._asking.begin(account=place, source=place)
        text, shown = secrets.token_urlsafe(32), "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
        life = self._settings.device_life

        def write(tx: Transaction) -> None:
            if oauth.waiting_devices(tx, tx.now) >= MAX_WAITING:
                raise Exhausted(
                    "Too many devices wait for an answer.", hint="Try again in some minutes.", wait=120.0
                )
            row = DeviceRow(
                user_code=shown,
                client=client,
                scope=str(wanted),
                device=device,
                place=place,
                pace=PACE_SECONDS,
                polled_at=None,
                created_at=tx.now,
                expires_at=tx.now + life,
                state="pending",
                subject="",
                authenticated_at=None,
            )
            oauth.forget_old(tx, tx.now - KEEP_SECONDS)
            oauth.add_device(tx, row, digest=digest(text))

        await self._db.write(write)
        return Waiting(text, f"{shown[:4]}-{shown[4:]}", int(life), int(PACE_SECONDS))

    async def look(self, principal: Principal, user_code: str, *, place: str) -> DeviceRow:
        """The device that shows this code, for the page that asks. Raises NotFound, Exhausted."""
        check_person(principal)
        self._guesses.begin(account=principal.subject, source=place)
        row = await self._db.read(lambda reader: oauth.device_by_user_code(reader, plain(user_code)))
        if row is None or row.state != "pending" or row.expires_at <= self._clock.now():
            raise NotFound("No device waits with this code.", hint="Codes hold for some minutes. Look again.")
        self._guesses.succeeded(account=principal.subject, source=place)
        return row

    async def answer(
        self, principal: Principal, user_code: str, *, allow: bool, place: str, request_id: str = ""
    ) -> DeviceRow:
        """The person's yes or no (RFC 8628 section 3.3). Raises NotFound, Precondition, Exhausted."""
        row = await self.look(principal, user_code, place=place)
        session_id = principal.credential.id

        def write(tx: Transaction) -> None:
            session = identities.session_by_id(tx, session_id)
            if session is None or session.revoked_at is not None:
                raise Precondition("The session has ended.", hint="Sign in again.")
            state = "allowed" if allow else "refused"
            answered = oauth.answer_device(
                tx,
                row.user_code,
                state=state,
                subject=principal.subject,
                authenticated_at=session.created_at,
            )
            if not answered:
                raise Precondition("This device has had its answer.")
            self._access.record(
                tx,
                principal,
                self._issuing.decision("everyone-lets-programs-act-for-themselves"),
                event=Event.LOGIN_ALLOW,
                outcome=Outcome.ALLOWED if allow else Outcome.REFUSED,
                request_id=request_id,
                detail={"client": row.client, "device": row.device, "place": row.place, "from": place},
            )

        await self._db.write(write)
        return row

    async def poll(self, *, client: str, device_code: str, issuer: str, request_id: str = "") -> Issued:
        """The answer so far (RFC 8628 section 3.5). Raises Refusal until there are tokens."""
        login_id = self._issuing.login_id()

        def write(tx: Transaction) -> Issued | Refusal:
            row = oauth.device(tx, digest(device_code))
            if row is None or row.client != client:
                return invalid_grant("device code")
            if row.expires_at <= tx.now:
                return Refusal("expired_token", "Nobody answered in time. Begin again.")
            match row.state:
                case "pending":
                    return self._pending(tx, row, device_code)
                case "refused":
                    return Refusal("access_denied", "The answer was no.")
                case "allowed" if oauth.use_device(tx, digest(device_code)):
                    return self._open(tx, row, login_id=login_id, issuer=issuer, request_id=request_id)
                case _:
                    return invalid_grant("device code")

        answered = await self._db.write(write)
        if isinstance(answered, Refusal):
            raise answered
        return answered

    def _pending(self, tx: Transaction, row: DeviceRow, device_code: str) -> Refusal:
        hasty = row.polled_at is not None and tx.now - row.polled_at < row.pace - 0.5
        pace = row.pace + SLOWER_SECONDS if hasty else row.pace
        oauth.poll_device(tx, digest(device_code), at=tx.now, pace=pace)
        if hasty:
            return Refusal("slow_down", f"Ask every {int(pace)} seconds.")
        return Refusal("authorization_pending", "Nobody has answered yet.")

    def _open(
        self, tx: Transaction, row: DeviceRow, *, login_id: str, issuer: str, request_id: str
    ) -> Issued | Refusal:
        person = identities.user(tx, row.subject)
        scope = Scope.read(row.scope)
        if person is None or person.disabled_at is not None or scope is None:
            return Refusal("access_denied", "The account cannot sign in.")
        assert row.authenticated_at is not None
        opening = Opening(person, row.client, scope, row.authenticated_at, device=row.device, place=row.place)
        return self._issuing.open(
            tx, opening, login_id=login_id, issuer=issuer, how="device_code", request_id=request_id
        )


def plain(user_code: str) -> str:
    """A code as somebody typed it, in the form that is stored."""
    return "".join(letter for letter in user_code.upper()[:64] if letter in _LETTERS)[:_LENGTH]
