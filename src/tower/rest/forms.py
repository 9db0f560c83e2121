"""The forms of what is sent, as the description tells them. The use-cases check it, and say what is wrong."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tower.policy.actions import Action
from tower.settings import DOMAINS


class Request(BaseModel):
    """What a caller sends: exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=512)


def _form(**schema: Any) -> Any:
    return Field(json_schema_extra=schema)


Subject = Annotated[str, _form(pattern="^[A-Za-z0-9][A-Za-z0-9._@+-]{0,126}$", examples=["alice"])]
KeyName = Annotated[str, _form(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", examples=["alice-laptop"])]
LowerName = Annotated[str, _form(pattern="^[a-z0-9][a-z0-9._-]{0,62}$", examples=["nightshift"])]
Domain = Annotated[str, _form(enum=["*", *DOMAINS])]
Project = Annotated[str, _form(examples=["*", "flytesnacks"])]
RoleName = Annotated[str, _form(examples=["viewer", "contributor", "admin"])]
ActionName = Annotated[str, _form(enum=[action.value for action in Action])]
Place = Annotated[str, _form(examples=["org", "task:flytesnacks/development/env.task", "user:alice"])]
Span = Annotated[str, _form(pattern="^[0-9]{1,9}[smhdw]$", examples=["12h", "30d"])]
Format = Annotated[str, _form(enum=["twr", "flyte"])]
