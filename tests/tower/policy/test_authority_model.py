"""The engine against the model of the authority rule, over generated worlds (differential)."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.authority_model import Rule, World

from tower.errors import Invalid
from tower.identity.principal import Ceiling, Kind
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Call, Engine
from tower.policy.rulebook import Rulebook, Written
from tower.policy.rules import Binding, Bindings

ACTIONS = [action.value for action in Action if action is not Action.SELF_VIEW]
PROJECTS, DOMAINS = ["flytesnacks", "other"], ["development", "production"]
TASKS = ["etl.load", "etl.drop"]
GROUPS = ["ops", "night"]
SUBJECTS = ["alice", "bob"]

projects = st.sampled_from([*PROJECTS, "*"])
domains = st.sampled_from([*DOMAINS, "*"])
bindings = st.builds(
    Binding,
    role=st.sampled_from(["admin", "contributor", "viewer", "runner", "keeper", "act-as", "unknown"]),
    project=projects,
    domain=domains,
    group=st.sampled_from(["", *GROUPS]),
) | st.builds(
    Binding,
    role=st.sampled_from(["contributor", "viewer", "runner"]),
    project=projects,
    domain=domains,
    kind=st.sampled_from(["task", "app"]),
    name=st.sampled_from([*TASKS, "hook"]),
)
somewhere = st.tuples(projects, domains, st.just(""), st.just(""))
one_thing = st.tuples(
    st.sampled_from(PROJECTS),
    st.sampled_from(DOMAINS),
    st.sampled_from(["task", "app"]),
    st.sampled_from([*TASKS, "hook"]),
)
lists = st.none() | st.frozensets(st.sampled_from(ACTIONS), max_size=4)
ceilings = st.builds(
    Ceiling,
    source=st.just("app:x"),
    role=st.sampled_from([None, "viewer", "contributor", "admin", "runner"]),
    project=projects,
    domain=domains,
    forbidden=st.frozensets(st.sampled_from(ACTIONS), max_size=2),
    actions=lists,
    projects=st.none() | st.frozensets(st.sampled_from(PROJECTS)),
    tasks=st.none() | st.frozensets(st.sampled_from([f"flytesnacks/development/{task}" for task in TASKS])),
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    project, domain, kind, target = draw(somewhere | one_thing)
    return Rule(
        permits=draw(st.booleans()),
        action=draw(st.none() | st.sampled_from(ACTIONS)),
        group_of_actions=draw(st.none() | st.sampled_from(["view", "work", "manage"])),
        person=draw(st.none() | st.sampled_from(SUBJECTS)),
        members=draw(st.none() | st.sampled_from(GROUPS)),
        project=project,
        domain=domain,
        kind=kind,
        target=target,
        named=draw(st.none() | st.sampled_from([*TASKS, "hook"])),
        only_through_app=draw(st.booleans()),
    )


def consistent(rule: Rule) -> Rule:
    """Cedar's head has one constraint on the principal and one on the action."""
    from dataclasses import replace

    if rule.action is not None:
        rule = replace(rule, group_of_actions=None)
    if rule.person is not None:
        rule = replace(rule, members=None)
    return rule


@st.composite
def worlds(draw: st.DrawFn) -> World:
    given_ = tuple(draw(st.lists(bindings, max_size=4)))
    groups = {each.group for each in given_ if each.group} | set(draw(st.sets(st.sampled_from(GROUPS))))
    return World(
        subject=draw(st.sampled_from(SUBJECTS)),
        groups=frozenset(groups),
        bindings=given_,
        roles={
            "runner": frozenset({"task:run", "task:view"}),
            "keeper": draw(st.frozensets(st.sampled_from(ACTIONS), min_size=1, max_size=4)),
        },
        rules=tuple(consistent(rule) for rule in draw(st.lists(rules(), max_size=3))),
        ceilings=tuple(draw(st.lists(ceilings, max_size=2))),
        app=draw(st.sampled_from(["", "flytesnacks/development/hook"])),
    )


questions = st.lists(
    st.tuples(
        st.sampled_from(Action),
        st.builds(
            Resource,
            type=st.sampled_from(ResourceType),
            project=st.sampled_from(["", *PROJECTS]),
            domain=st.sampled_from(["", *DOMAINS]),
            name=st.sampled_from(["", *TASKS, "hook"]),
            owner=st.sampled_from(["", *SUBJECTS]),
            task=st.sampled_from(["", *TASKS]),
        ),
    ),
    min_size=20,
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds(), questions)
def test_the_engine_says_what_the_model_says(world: World, asked: list[tuple[Action, Resource]]) -> None:
    written = tuple(
        Written(f"p{number}", rule.cedar(), rule.project, rule.domain, rule.kind, rule.target)
        for number, rule in enumerate(world.rules)
    )
    try:
        engine = Engine(Rulebook(written, world.roles))
    except Invalid:
        # a rule that lets everyone manage people, policies or keys is refused at load
        assert any(rule.permits and rule.person is None and rule.members is None for rule in world.rules)
        return
    for action, resource in asked:
        decision = engine.decide(
            subject=world.subject,
            kind=Kind.USER,
            bindings=Bindings.of(world.bindings, world.groups),
            ceilings=world.ceilings,
            action=action,
            resource=resource,
            call=Call(app=world.app),
        )
        assert decision.allowed is world.allows(action.value, resource), (action, resource, decision)
