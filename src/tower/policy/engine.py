"""The decision: Cedar over the built-in policies and those of administrators, read and tried when loaded."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

import cedarpy

from tower.errors import Broken, Invalid
from tower.identity.principal import Ceiling, Kind
from tower.policy import ceilings as limits
from tower.policy import entities, rulebook
from tower.policy.actions import MANAGING, Action, Resource, ResourceType
from tower.policy.rulebook import Rulebook
from tower.policy.rules import ANY, LISTED, NOTHING, Binding, Bindings, Role, kind_of

EMPTY = Rulebook()


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether, by which policies (their ids) of which revision, and about what.

    A refusal names the policies that forbid, or nothing when there is just none that allows.
    """

    allowed: bool
    policies: tuple[str, ...]
    revision: str
    action: str = ""
    resource: str = ""

    def also(self, other: Decision) -> Decision:
        """Both decisions as one, about this one's action and resource: allowed when both are."""
        return replace(
            self,
            allowed=self.allowed and other.allowed,
            policies=tuple(dict.fromkeys((*self.policies, *other.policies))),
        )


@dataclass(frozen=True, slots=True)
class Call:
    """How the question came: what policies may look at besides person, action and thing.

    `foreign_code` when what is to run was registered by somebody else; `privileged` when the caller holds a
    role that manages anything (`Engine.privileged`). Both are false where nothing is to run (T1). `latest`
    when no version of it is named (T2). `audience` is whom a running task wants to identify itself to.
    """

    credential: str = ""
    attested: bool = False
    app: str = ""
    in_run: bool = False
    foreign_code: bool = False
    privileged: bool = False
    latest: bool = False
    audience: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with what led to it: the roles that reach the thing and whether each allows it by itself."""

    decision: Decision
    roles: tuple[tuple[Binding, bool], ...]
    ceilings: tuple[tuple[Ceiling, bool], ...]


_DIRECT = Call()


class Engine:
    """Decides, and remembers what it decided. Of one rule book; another one makes another engine.

    Cedar is shown a thing's sort, its scope, whether the caller owns it, and its name only where a policy or
    a binding is about names; and the call only where there are policies of administrators. Decisions are
    remembered by no less than what was shown, so remembering is sound; who asked is part of that where a
    policy could look at it, so that otherwise people of the same roles share what is remembered.
    """

    def __init__(
        self,
        rules: Rulebook = EMPTY,
        *,
        policies: str | None = None,
        schema: str | None = None,
        remember: int = 65536,
    ) -> None:
        """Raises Broken for built-in policies that do not parse, do not fit the schema or fail the trial.

        Raises Invalid, naming document and line, for something an administrator wrote.
        """
        here = files("tower.policy")
        text = (here / "builtin.cedar").read_text("utf-8") if policies is None else policies
        shape = (here / "builtin.cedarschema").read_text("utf-8") if schema is None else schema
        written = rules.document() if rules.policies or rules.roles else ""
        self.rules = rules
        self.document = json.dumps(
            {"schema": shape, "built_in": text, "written": json.loads(rules.document())}, sort_keys=True
        )
        """All that this engine decides by, as JSON: what a stored revision is."""
        self.revision = hashlib.sha256(f"{shape}\0{text}{written}".encode()).hexdigest()[:16]
        self._remember = remember
        self._written, self._foreign = bool(rules.policies), policies is not None
        self._known: OrderedDict[tuple[Any, ...], Decision] = OrderedDict()
        for name, actions in rules.roles.items():
            rulebook.check_role(name, actions)
        self._roles = {**LISTED, **rules.roles}
        self._builtin, self._schema = _load(text, shape)
        self._policies, self._names = self._builtin, frozenset[ResourceType]()
        self._try()
        if rules.policies:
            self._add(text, shape)
        self._known.clear()

    def decide(
        self,
        *,
        subject: str,
        kind: Kind,
        bindings: Bindings,
        ceilings: tuple[Ceiling, ...],
        action: Action,
        resource: Resource,
        call: Call = _DIRECT,
    ) -> Decision:
        """What the bindings and the policies allow, and no more than every ceiling allows.

        The policies of an allowed decision are those that allowed the subject itself, then, as
        `below <source>`, each ceiling that was tried. A refusal by a ceiling names it in the same way.
        """
        decision = self._ask(subject, kind, bindings, call, action=action, resource=resource, limited=False)
        policies = decision.policies
        for ceiling in ceilings if decision.allowed else ():
            if not ceiling.limits(action.value):
                continue
            policies = (*policies, f"below {ceiling.source}")
            if not self._below(ceiling, subject, kind, action=action, resource=resource):
                return Decision(False, (policies[-1],), self.revision, action.value, str(resource))
        return Decision(decision.allowed, policies, self.revision, action.value, str(resource))

    def explain(
        self,
        *,
        subject: str,
        kind: Kind,
        bindings: Bindings,
        ceilings: tuple[Ceiling, ...],
        action: Action,
        resource: Resource,
        call: Call = _DIRECT,
    ) -> Explanation:
        """The decision of `decide` and what led to it."""
        decision = self.decide(
            subject=subject,
            kind=kind,
            bindings=bindings,
            ceilings=ceilings,
            action=action,
            resource=resource,
            call=call,
        )
        shown = () if kind is Kind.MACHINE else entities.relevant(bindings, resource)
        roles = [
            (binding, self._alone(binding, subject, kind, action=action, resource=resource))
            for binding in shown
        ]
        tried = [
            (ceiling, self._below(ceiling, subject, kind, action=action, resource=resource))
            for ceiling in ceilings
            if ceiling.limits(action.value)
        ]
        return Explanation(decision, tuple(roles), tuple(tried))

    def privileged(self, bindings: Bindings) -> bool:
        """Whether one of the roles, wherever it holds, manages people, keys, policy, secrets or projects."""
        return any(self._manages(binding.role) for binding in bindings.items)

    def _manages(self, role: str) -> bool:
        return role == Role.ADMIN or not MANAGING.isdisjoint(self._roles.get(role, ()))

    def looks_at_names(self, bindings: Bindings, type_: ResourceType) -> bool:
        """Whether two things of this sort in one scope can get different answers by their names."""
        kind = kind_of(type_)
        return type_ in self._names or any(named == kind for named, *_ in bindings.named)

    def _alone(
        self, binding: Binding, subject: str, kind: Kind, *, action: Action, resource: Resource
    ) -> bool:
        only = Bindings.of([replace(binding, group="")])
        return self._ask(subject, kind, only, _DIRECT, action=action, resource=resource, limited=True).allowed

    def _below(
        self, ceiling: Ceiling, subject: str, kind: Kind, *, action: Action, resource: Resource
    ) -> bool:
        if not limits.lists_allow(ceiling, action, resource):
            return False
        if ceiling.role is None and ceiling.project == ANY and ceiling.domain == ANY:
            return True
        role = Role.ADMIN.value if ceiling.role is None else ceiling.role
        allowed = _single(role, ceiling.project, ceiling.domain)
        return self._ask(
            subject, kind, allowed, _DIRECT, action=action, resource=resource, limited=True
        ).allowed

    def _ask(
        self,
        subject: str,
        kind: Kind,
        bindings: Bindings,
        call: Call,
        *,
        action: Action,
        resource: Resource,
        limited: bool,
    ) -> Decision:
        owned = bool(resource.owner) and resource.owner == subject
        type_, name, task = resource.type, resource.name, resource.task
        alone = bool(bindings.named) and bindings.name(resource)
        if type_ is ResourceType.RUN or not (type_ in self._names or (name and alone)):
            name = ""
        if type_ is not ResourceType.RUN or not alone:
            task = ""
        shown = call if self.rules.policies and not limited else _DIRECT
        # the built-in policies tell people apart by role and ownership alone; only others can name somebody
        named = subject if self._foreign or (self._written and not limited) else ""
        key = (
            kind,
            named,
            bindings.revision,
            action,
            type_,
            resource.project,
            resource.domain,
            name,
            task,
            owned,
            limited,
            shown,
        )
        known = self._known.get(key)
        if known is None:
            thing = Resource(type_, resource.project, resource.domain, name, task=task)
            known = self._evaluate(
                subject, kind, bindings, shown, action=action, resource=thing, owned=owned, limited=limited
            )
            self._known[key] = known
            while len(self._known) > self._remember:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return known

    def _evaluate(
        self,
        subject: str,
        kind: Kind,
        bindings: Bindings,
        call: Call,
        *,
        action: Action,
        resource: Resource,
        owned: bool,
        limited: bool,
    ) -> Decision:
        caller = entities.caller_uid(subject, kind)
        context = {
            "limited": limited,
            "credential": call.credential,
            "attested": call.attested,
            "app": call.app,
            "in_run": call.in_run,
            "foreign_code": call.foreign_code,
            "privileged": call.privileged,
            "latest": call.latest,
            "audience": call.audience,
        }
        request = {
            "principal": caller,
            "action": entities.uid("Action", action.value),
            "resource": entities.resource_uid(resource),
            "context": context,
        }
        shown = entities.slice_of(
            caller,
            kind,
            bindings,
            entities.relevant(bindings, resource),
            action=action.value,
            resource=resource,
            owned=owned,
            roles=self._roles,
        )
        # a ceiling is what the roles give, and no policy of an administrator lifts it
        policies = self._builtin if limited else self._policies
        result = cedarpy.is_authorized(request, policies, shown, schema=self._schema)
        if result.diagnostics.errors:
            # a policy that cannot be evaluated may be one that forbids
            return Decision(False, ("policy-error",), self.revision)
        names = result.diagnostics.id_annotations_by_reason
        reasons = tuple(sorted(names.get(reason, reason) for reason in result.diagnostics.reasons))
        return Decision(result.allowed, reasons, self.revision)

    def _add(self, text: str, shape: str) -> None:
        """The policies of administrators on top of the built-in ones. Raises Invalid."""
        policies: dict[str, Any] = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
        statements = [each for one in self.rules.policies for each in rulebook.read(one, schema=shape)]
        for number, each in enumerate(statements):
            policies[f"written{number}"] = each.json
            self._names |= each.names
        whole = {"templates": {}, "staticPolicies": policies, "templateLinks": []}
        self._policies = cedarpy.PolicySet.from_json_str(json.dumps(whole))
        for action in Action:
            for type_ in ResourceType:
                tried = self._ask(
                    "trial",
                    Kind.USER,
                    NOTHING,
                    _DIRECT,
                    action=action,
                    resource=Resource(type_, "trial", "development", "trial"),
                    limited=False,
                )
                if tried.policies == ("policy-error",):
                    raise Invalid(
                        f"A policy cannot be evaluated for {action} on a {type_}.", hint="Nothing changed."
                    )
        for action in (Action.USER_MANAGE, Action.POLICY_MANAGE, Action.KEY_MANAGE):
            tried = self._ask(
                "trial",
                Kind.USER,
                NOTHING,
                _DIRECT,
                action=action,
                resource=Resource(ResourceType.ORG),
                limited=False,
            )
            if tried.allowed:
                raise Invalid(
                    f"The policy {tried.policies[0].removeprefix('policy:')} would let everyone do {action}.",
                    hint="Nothing was changed. Name the people or the group.",
                )

    def _try(self) -> None:
        """Ask for what must hold in every policy set: a broken one stops the start, not the first request."""
        org, task = Resource(ResourceType.ORG), Resource(ResourceType.TASK, "trial", "development", "trial")
        admin, unknown = Bindings.of([Binding("admin")]), Bindings.of([Binding("no-such-role")])
        trials = (
            (Kind.MACHINE, NOTHING, Action.USER_MANAGE, org, True),
            (Kind.USER, admin, Action.USER_MANAGE, org, True),
            (Kind.USER, admin, Action.TASK_RUN, task, True),
            (Kind.USER, NOTHING, Action.TASK_VIEW, task, False),
            (Kind.USER, NOTHING, Action.USER_MANAGE, org, False),
            (Kind.USER, unknown, Action.TASK_VIEW, task, False),
        )
        for kind, bindings, action, resource, expected in trials:
            found = self._ask(
                "trial", kind, bindings, _DIRECT, action=action, resource=resource, limited=False
            )
            if found.allowed is not expected:
                raise Broken("The policy set fails its trial.", cause=f"{kind} {action} {resource}: {found}")


def _load(text: str, shape: str) -> tuple[cedarpy.PolicySet, cedarpy.Schema]:
    try:
        checked = cedarpy.validate_policies(text, shape)
        policies = cedarpy.PolicySet.from_str(text)
        schema = cedarpy.Schema.from_str(shape)
    except ValueError as error:
        raise Broken("The policy set cannot be read.", cause=str(error)) from error
    if not checked.validation_passed:
        raise Broken("The policy set does not fit its schema.", cause="; ".join(map(str, checked.errors)))
    return policies, schema


@lru_cache(maxsize=1024)
def _single(role: str, project: str, domain: str) -> Bindings:
    return Bindings.of([Binding(role, project, domain)])
