"""What administrators wrote: Cedar policies for a scope each, and roles as lists of actions; checked.

A policy reaches no further than its scope and never the operator of the machine: both are built into its
conditions here, so that whoever keeps the policies of one project cannot touch another, and nobody can lock
out the last resort.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import cedarpy

from tower.errors import Invalid
from tower.policy.actions import Action, ResourceType
from tower.policy.entities import TYPES
from tower.policy.rules import ANY, KINDS, LISTED, Role

MAX_TEXT = 32 * 1024
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
"""The names of policies, roles and groups."""

_MOST_BRACKETS = 200
"""In one policy, whatever they are in: Cedar's parser ends the process where too many are open at once."""

_MOST_DOTS = 300
"""In one policy, outside of strings and comments: `has a.b.c` takes memory by the square of its length."""

_DEEPEST = 110
"""Of a policy in Cedar's JSON form, which is read back to 128: about fifty conditions in a row."""

_OPEN_TYPES = {"User", "Group", "Action"}
_BUILT_IN = {*Role, *LISTED}


@dataclass(frozen=True, slots=True)
class Written:
    """One document of an administrator: one or more Cedar policies, and the scope that they hold in.

    `kind` is task or app for the policies of the one thing called `target`, else "".
    """

    name: str
    text: str
    project: str = ANY
    domain: str = ANY
    kind: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class Rulebook:
    """All that administrators wrote, as of one revision."""

    policies: tuple[Written, ...] = ()
    roles: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def document(self) -> str:
        """The whole as JSON, the same for the same content: what is kept of a revision, and hashed for it."""
        policies = [
            {name: getattr(each, name) for name in Written.__dataclass_fields__}
            for each in sorted(self.policies, key=lambda each: each.name)
        ]
        roles = {name: sorted(actions) for name, actions in sorted(self.roles.items())}
        return json.dumps({"policies": policies, "roles": roles}, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy of a document: its line there, its text, and Cedar's JSON form with the scope built in."""

    document: str
    line: int
    id: str
    json: dict[str, Any]
    names: frozenset[ResourceType]
    """The sorts of things whose names it looks at."""


def check_role(name: str, actions: frozenset[str]) -> None:
    """Raise Invalid for a role that cannot be: a name that is built in, or an action that there is not."""
    if not NAME.fullmatch(name):
        raise Invalid("The name of a role has lower-case letters, digits and . _ - and starts with no mark.")
    if name in _BUILT_IN:
        raise Invalid(f"The role {name} is built in.", hint="Take another name.")
    unknown = sorted(actions - {action.value for action in Action})
    if unknown:
        raise Invalid(f"There is no action {unknown[0][:60]}.", hint=f"Actions are {', '.join(Action)}.")
    if not actions:
        raise Invalid(f"The role {name} lists no action.")


def read(document: Written, *, schema: str) -> tuple[Statement, ...]:
    """The policies of a document. Raises Invalid naming the document, the line and what is wrong there."""
    if not NAME.fullmatch(document.name):
        raise Invalid(
            "The name of a policy has lower-case letters, digits and . _ - and starts with no mark."
        )
    if len(document.text) > MAX_TEXT:
        raise Invalid(f"The policy {document.name} is longer than {MAX_TEXT} characters.")
    if document.kind not in {"", "task", "app"} or bool(document.kind) != bool(document.target):
        raise Invalid(f"The scope of the policy {document.name} is neither a task nor an app by name.")
    if document.kind and ANY in {document.project, document.domain}:
        raise Invalid(f"A {document.kind} stands in one project and domain: name both.")
    found = tuple(_statements(document.text))
    if not found:
        raise Invalid(f"The policy {document.name} says nothing.", hint="Write permit (...) or forbid (...).")
    made: list[Statement] = []
    for line, text in found:
        made.append(_statement(document, line, text, schema=schema, single=len(found) == 1))
    ids = [each.id for each in made]
    for each in made:
        if ids.count(each.id) > 1:
            raise _wrong(document, each.line, "another policy here has the same @id")
    return tuple(made)


def _statement(document: Written, line: int, text: str, *, schema: str, single: bool) -> Statement:
    if sum(map(text.count, "([{")) > _MOST_BRACKETS:
        raise _wrong(document, line, f"more than {_MOST_BRACKETS} brackets in one policy")
    if sum(token[0] == "." for token in _TOKEN.finditer(text)) > _MOST_DOTS:
        raise _wrong(document, line, f"more than {_MOST_DOTS} dots in one policy")
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except RecursionError:
        raise _wrong(document, line, _TOO_DEEP) from None
    except ValueError as error:
        raise _wrong(document, _where(line, text, str(error)), str(error)) from None
    if parsed["templates"] or len(parsed["staticPolicies"]) != 1:
        raise _wrong(document, line, "templates are not offered")
    (policy,) = parsed["staticPolicies"].values()
    if _depth(policy) > _DEEPEST:
        raise _wrong(document, line, _TOO_DEEP)
    checked = cedarpy.validate_policies(text, schema)
    if not checked.validation_passed:
        problem = re.sub(r"^for policy `policy0`, ", "", str(checked.errors[0].error))
        raise _wrong(document, _where(line, text, problem), problem)
    closed = sorted({type_ for type_ in _entities(policy) if type_ not in _OPEN_TYPES})
    if closed:
        raise _wrong(
            document,
            line,
            f"{closed[0]} cannot be named one by one; compare resource.project, resource.domain "
            "and resource.name, or give the policy a scope",
        )
    if policy["principal"].get("entity_type") == "Machine":
        raise _wrong(document, line, "no policy is about the operator of the machine")
    if policy["principal"]["op"] == "All":
        policy["principal"] = {"op": "is", "entity_type": "User"}
    own = policy.get("annotations", {}).get("id", "")
    label = f"policy:{document.name}" + ("" if single and not own else f"/{own or f'line-{line}'}")
    policy["annotations"] = {"id": label}
    policy["conditions"] = [*_scope(document), *policy["conditions"]]
    return Statement(document.name, line, label, policy, _names(policy))


_TOO_DEEP = "too many conditions in a row or within one another; make several policies of them"


def _depth(value: Any) -> int:
    """How deep lists and objects lie in one another, as far as it matters."""
    depth, level = 0, [value]
    while level and depth <= _DEEPEST:
        depth += 1
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def _scope(document: Written) -> list[dict[str, Any]]:
    wanted = {"project": document.project, "domain": document.domain}
    wanted = {attr: value for attr, value in wanted.items() if value != ANY}
    if document.kind:
        wanted["name"] = document.target
    tests: list[dict[str, Any]] = [
        {"==": {"left": _attr(attr), "right": {"Value": value}}} for attr, value in wanted.items()
    ]
    if document.kind:
        tests.append({"is": {"left": {"Var": "resource"}, "entity_type": TYPES[KINDS[document.kind]]}})
    return [{"kind": "when", "body": body} for body in tests]


def _attr(name: str) -> dict[str, Any]:
    return {".": {"left": {"Var": "resource"}, "attr": name}}


def _names(policy: dict[str, Any]) -> frozenset[ResourceType]:
    """The sorts of resources whose name the policy reads; the name of a principal is no such thing."""
    reads = any(
        node.get("attr") == "name" and node.get("left") != {"Var": "principal"} for node in _nodes(policy)
    )
    if not reads:
        return frozenset()
    only = policy["resource"].get("entity_type")
    for condition in policy["conditions"]:
        about = condition["body"].get("is", {})
        if condition["kind"] == "when" and about.get("left") == {"Var": "resource"}:
            only = about["entity_type"]
    return frozenset(type_ for type_, name in TYPES.items() if only in {None, name}) - {ResourceType.RUN}


def _entities(policy: dict[str, Any]) -> Iterator[str]:
    for node in _nodes(policy):
        if node.keys() == {"type", "id"}:
            yield str(node["type"])


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


_TOKEN = re.compile(r'//[^\n\r]*|"(?:\\.|[^"\\])*"?|\n|;|\S', re.DOTALL)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each policy and the line that it begins on: what ends in `;` outside of strings and comments."""
    start, line, begins = 0, 1, 0
    for token in _TOKEN.finditer(text):
        piece = token[0]
        if piece == "\n":
            line += 1
        elif not piece.startswith("//"):
            if not begins:
                start, begins = token.start(), line
            line += piece.count("\n")
            if piece == ";":
                yield begins, text[start : token.end()]
                begins = 0
    if begins:
        yield begins, text[start:]


def _where(line: int, text: str, problem: str) -> int:
    """The line of what the problem names, where just one line of the policy has it, else its first line.

    Cedar's Python interface tells no position.
    """
    if named := re.search(r"`(\w+)`|\binvalid variable: (\w+)", problem):
        word = re.compile(rf"\b{named[1] or named[2]}\b")
        code = [re.sub(r"//.*", "", each) for each in text.split("\n")]
        found = [number for number, each in enumerate(code) if word.search(each)]
        if len(found) == 1:
            return line + found[0]
    return line


def _wrong(document: Written, line: int, problem: str) -> Invalid:
    return Invalid(
        f"The policy {document.name}, line {line}: {' '.join(problem.split())[:400]}.",
        hint="Nothing was changed.",
    )
