"""Who the control plane takes the caller for."""

from __future__ import annotations

from typing import Any

from flyteidl2.auth import identity_pb2
from google.protobuf.json_format import MessageToDict

from flyte._init import current_session
from flyte._syncify import syncify_class

_USER_INFO = "/flyteidl2.auth.IdentityService/UserInfo"


class User:
    """A caller, as the control plane knows them. Each `get` asks anew: nothing is kept between callers."""

    def __init__(self, info: identity_pb2.UserInfoResponse) -> None:
        self.pb2 = info

    @syncify_class
    @classmethod
    async def get(cls) -> User:
        """The caller of this moment. Raises UnauthenticatedError when they cannot be verified."""
        info = await current_session().unary(
            _USER_INFO, identity_pb2.UserInfoRequest(), identity_pb2.UserInfoResponse, idempotent=True
        )
        return cls(info)

    def subject(self) -> str:
        """The name that runs and the audit trail record, unique and stable."""
        return str(self.pb2.subject)

    def name(self) -> str:
        """The name for people; may be empty, as for a service."""
        return str(self.pb2.name)

    def email(self) -> str:
        """The mail address; may be empty."""
        return str(self.pb2.email)

    def preferred_username(self) -> str:
        """The login name; may be empty."""
        return str(self.pb2.preferred_username)

    def given_name(self) -> str:
        """The first name; may be empty."""
        return str(self.pb2.given_name)

    def family_name(self) -> str:
        """The last name; may be empty."""
        return str(self.pb2.family_name)

    def picture(self) -> str:
        """The address of a picture; may be empty."""
        return str(self.pb2.picture)

    def additional_claims(self) -> dict[str, Any]:
        """What else the control plane says about the caller."""
        return dict(MessageToDict(self.pb2.additional_claims))

    def to_dict(self) -> dict[str, Any]:
        """Everything that is known, by the names of the wire."""
        return dict(MessageToDict(self.pb2, preserving_proto_field_name=True))

    def __repr__(self) -> str:
        return f"<User {self.subject()}>"
