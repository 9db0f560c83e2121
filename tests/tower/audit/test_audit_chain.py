"""The hash chain: an intact one verifies, and whatever is done to a record is named by its place."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tower.audit import GENESIS, Break, Damage, Entry, Event, Head, Outcome, Record, seal, verify

words = st.text(max_size=12)
records = st.builds(
    Record,
    at=st.floats(min_value=0, max_value=4e9),
    event=st.sampled_from(Event),
    outcome=st.sampled_from(Outcome),
    subject=words,
    credential_kind=words,
    credential_id=words,
    actors=st.lists(words.map("app:{}".format) | words.map("run:{}".format), max_size=3).map(tuple),
    action=words,
    resource=words,
    request_id=words,
    decision=words,
    policy_revision=words,
    detail=st.dictionaries(words, words | st.integers() | st.booleans(), max_size=3),
)


def chained(facts: list[Record]) -> list[Entry]:
    entries: list[Entry] = []
    end = Head()
    for record in facts:
        entry = seal(record, after=end)
        entries.append(entry)
        end = Head(entry.seq, entry.hash)
    return entries


def record(resource: str = "run:p/d/r") -> Record:
    return Record(
        at=1.5,
        event=Event.RUN_CREATE,
        outcome=Outcome.ALLOWED,
        subject="alice",
        credential_kind="api_key",
        credential_id="k1",
        actors=("app:p/d/webhook", "run:p/d/r0/a0/1"),
        resource=resource,
    )


chains = st.lists(records, min_size=1, max_size=8).map(chained)


@given(chains)
def test_an_intact_chain_holds_with_and_without_a_head(entries: list[Entry]) -> None:
    assert verify(entries) is None
    for entry in entries:
        assert verify(entries, head=Head(entry.seq, entry.hash)) is None


@given(chains, st.data())
def test_an_intact_chain_holds_from_any_place_on(entries: list[Entry], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(entries) - 1))
    start = Head(entries[cut].seq, entries[cut].hash)
    assert verify(entries[cut + 1 :], after=start) is None


def _other(value: Any) -> Any:
    return value + 1 if isinstance(value, int | float) else value + "x"


@given(chains, st.data())
def test_an_edit_of_any_field_is_found_at_its_record(entries: list[Entry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    name = data.draw(
        st.sampled_from([field.name for field in dataclasses.fields(Entry) if field.name != "seq"])
    )
    original = entries[place]
    edited = dataclasses.replace(original, **{name: _other(getattr(original, name))})
    assume(edited != original)
    entries[place] = edited
    found = verify(entries)
    assert found == Break(original.seq, Damage.EDITED)


@given(chains, st.data())
def test_an_edit_that_also_mends_its_own_hash_is_found(entries: list[Entry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    head = Head(entries[-1].seq, entries[-1].hash)
    edited = dataclasses.replace(entries[place], subject=entries[place].subject + "x")
    entries[place] = dataclasses.replace(edited, hash=edited.digest())
    assert verify(entries, head=head) == Break(place + 1, Damage.REPLACED)


@given(chains, st.data())
def test_a_deleted_record_is_named(entries: list[Entry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    head = Head(entries[-1].seq, entries[-1].hash)
    last = place == len(entries) - 1
    del entries[place]
    assert verify(entries, head=head) == Break(place + 1, Damage.TRUNCATED if last else Damage.MISSING)


@given(chains, st.data())
def test_deleting_and_renumbering_is_found(entries: list[Entry], data: st.DataObject) -> None:
    assume(len(entries) > 1)
    place = data.draw(st.integers(0, len(entries) - 2))
    del entries[place]
    for index in range(place, len(entries)):
        moved = dataclasses.replace(entries[index], seq=entries[index].seq - 1)
        entries[index] = dataclasses.replace(moved, hash=moved.digest())
    found = verify(entries)
    assert found is not None
    assert found.damage is Damage.REPLACED


@given(chains, st.data())
def test_swapped_records_are_found(entries: list[Entry], data: st.DataObject) -> None:
    assume(len(entries) > 1)
    place = data.draw(st.integers(0, len(entries) - 2))
    entries[place], entries[place + 1] = entries[place + 1], entries[place]
    assert verify(entries) is not None


@given(chains, st.data())
def test_a_cut_is_found_by_the_head_that_was_kept(entries: list[Entry], data: st.DataObject) -> None:
    left = data.draw(st.integers(0, len(entries) - 1))
    head = Head(entries[-1].seq, entries[-1].hash)
    assert verify(entries[:left], head=head) == Break(left + 1, Damage.TRUNCATED)


@given(chains, records)
def test_a_chain_made_anew_is_found_by_the_head_that_was_kept(entries: list[Entry], other: Record) -> None:
    head = Head(entries[-1].seq, entries[-1].hash)
    forged = chained([dataclasses.replace(other, request_id="forged") for _ in range(len(entries) + 1)])
    assume(forged[len(entries) - 1].hash != head.hash)
    assert verify(forged, head=head) == Break(len(entries), Damage.REPLACED)


def test_a_record_cannot_pass_for_another_by_moving_the_border_of_two_fields() -> None:
    one = seal(dataclasses.replace(record(), subject="ab", credential_id="c"), after=Head())
    two = seal(dataclasses.replace(record(), subject="a", credential_id="bc"), after=Head())
    assert one.hash != two.hash


def test_an_entry_names_the_app_nearest_to_the_person() -> None:
    entry = seal(record(), after=Head())
    assert (entry.seq, entry.previous, entry.app) == (1, GENESIS, "p/d/webhook")
    assert seal(dataclasses.replace(record(), actors=()), after=Head()).app == ""


@pytest.mark.parametrize("detail", [{"x": float("nan")}, {"x": object()}, {"x": b"bytes"}])
def test_a_detail_that_is_not_fit_for_json_is_refused(detail: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        seal(dataclasses.replace(record(), detail=detail), after=Head())


def test_every_event_is_named_noun_verb_and_once() -> None:
    for event in Event:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*\.[a-z]+", event), event
        assert event.name == event.value.upper().replace(".", "_").replace("-", "_")


def test_a_break_reads_like_a_sentence() -> None:
    for damage in Damage:
        assert str(Break(7, damage)).startswith("record 7: it")
