"""Words that several services share: identities, times, identifiers, and what a list is asked for."""

from __future__ import annotations

from typing import Any

from flyteidl2.common import identity_pb2, list_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from tower.control.listing import Filter, Op, Query
from tower.errors import Invalid
from tower.identity.principal import Kind

_FUNCTIONS = list_pb2.Filter.Function
OPS: dict[int, Op] = {
    _FUNCTIONS.EQUAL: Op.EQUAL,
    _FUNCTIONS.NOT_EQUAL: Op.NOT_EQUAL,
    _FUNCTIONS.GREATER_THAN: Op.GREATER,
    _FUNCTIONS.GREATER_THAN_OR_EQUAL: Op.GREATER_OR_EQUAL,
    _FUNCTIONS.LESS_THAN: Op.LESS,
    _FUNCTIONS.LESS_THAN_OR_EQUAL: Op.LESS_OR_EQUAL,
    _FUNCTIONS.CONTAINS: Op.CONTAINS,
    _FUNCTIONS.CONTAINS_CASE_INSENSITIVE: Op.CONTAINS_ANY_CASE,
    _FUNCTIONS.VALUE_IN: Op.IN,
    _FUNCTIONS.VALUE_NOT_IN: Op.NOT_IN,
    _FUNCTIONS.ENDS_WITH: Op.ENDS_WITH,
    _FUNCTIONS.NOT_ENDS_WITH: Op.NOT_ENDS_WITH,
    _FUNCTIONS.EXISTS: Op.EXISTS,
    _FUNCTIONS.NOT_EXISTS: Op.NOT_EXISTS,
}
"""The filter functions of the protocol; a test holds the table complete."""


def person(
    subject: str, *, kind: str | None, name: str | None, email: str | None
) -> identity_pb2.EnrichedIdentity:
    """A subject as clients see it: a person is a user, a service identity an application."""
    identity = identity_pb2.EnrichedIdentity()
    if kind == Kind.SERVICE:
        identity.application.id.subject = subject
        identity.application.spec.name = name or ""
        return identity
    identity.user.id.subject = subject
    first, _, last = (name or "").partition(" ")
    identity.user.spec.first_name = first
    identity.user.spec.last_name = last
    identity.user.spec.email = email or ""
    identity.user.spec.user_handle = subject
    return identity


def stamp(seconds: float) -> Timestamp:
    """Seconds since the epoch as a timestamp, to the microsecond."""
    whole, part = divmod(round(seconds * 1e6), 1_000_000)
    return Timestamp(seconds=whole, nanos=part * 1000)


def query(request: Any) -> Query:
    """What a `common.ListRequest` asks. Raises Invalid for what this Tower cannot answer."""
    if request.raw_filters:
        raise Invalid("Raw filters are not offered.", hint="Use filters.")
    sort = request.sort_by
    if request.sort_by_fields:
        if len(request.sort_by_fields) > 1:
            raise Invalid("A list is sorted by one field.")
        sort = request.sort_by_fields[0]
    filters = []
    for each in request.filters:
        op = OPS.get(each.function)
        if op is None:
            raise Invalid("That filter function is not one that lists have.")
        filters.append(Filter(op, each.field, tuple(each.values)))
    return Query(
        limit=request.limit,
        token=request.token,
        sort=sort.key,
        descending=sort.direction == list_pb2.Sort.DESCENDING,
        filters=tuple(filters),
    )
