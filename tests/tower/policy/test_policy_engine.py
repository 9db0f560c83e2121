"""Laws of the engine: nothing widens, unknown roles are nothing, and a broken policy set does not start."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.resources import files

import flyteidl2
import pytest
from google.protobuf import descriptor_pool
from hypothesis import given, settings
from hypothesis import strategies as st

from tower.errors import Broken
from tower.identity.principal import Ceiling, Kind
from tower.policy.actions import METHODS, ROUTES, Action, Resource, ResourceType, check_complete
from tower.policy.engine import Engine
from tower.policy.rules import Binding, Bindings, Role, covering, group

ENGINE = Engine()
ENGINE_TEXT = (files("tower.policy") / "builtin.cedar").read_text("utf-8")

names = st.sampled_from(["flytesnacks", "other", "*", "a/b", "", "flytesnacks/development"])
domains = st.sampled_from(["development", "production", "*", "d/e", ""])
roles = st.sampled_from([*Role, "owner", "ADMIN", "", "*"])
subjects = st.sampled_from(["alice", "bob"])
bindings = st.lists(st.builds(Binding, role=roles, project=names, domain=domains), max_size=4).map(
    Bindings.of
)
ceilings = st.lists(
    st.builds(
        Ceiling,
        source=st.just("key:x"),
        role=st.none() | roles,
        project=names,
        domain=domains,
        forbidden=st.frozensets(st.sampled_from([action.value for action in Action]), max_size=3),
    ),
    max_size=3,
).map(tuple)
resources = st.builds(
    Resource,
    type=st.sampled_from(ResourceType),
    project=st.sampled_from(["", "flytesnacks", "other", "a"]),
    domain=st.sampled_from(["", "development", "production"]),
    name=st.just("x"),
    owner=st.sampled_from(["", "alice", "bob"]),
)
acts = st.sampled_from(Action)


def allowed(
    who: str, given_: Bindings, action: Action, resource: Resource, limits: tuple[Ceiling, ...] = ()
) -> bool:
    return ENGINE.decide(
        subject=who, kind=Kind.USER, bindings=given_, ceilings=limits, action=action, resource=resource
    ).allowed


@settings(max_examples=300, deadline=None)
@given(subjects, bindings, acts, resources, ceilings, ceilings)
def test_a_ceiling_never_widens_and_more_ceilings_never_do(
    who: str,
    given_: Bindings,
    action: Action,
    resource: Resource,
    some: tuple[Ceiling, ...],
    more: tuple[Ceiling, ...],
) -> None:
    if allowed(who, given_, action, resource, (*some, *more)):
        assert allowed(who, given_, action, resource, some)
        assert allowed(who, given_, action, resource)


@settings(max_examples=200, deadline=None)
@given(subjects, bindings, acts, resources)
def test_what_is_allowed_has_a_role_that_covers_it_or_is_ones_own(
    who: str, given_: Bindings, action: Action, resource: Resource
) -> None:
    if not allowed(who, given_, action, resource) or action is Action.SELF_VIEW:
        return
    if action is Action.KEY_MANAGE_OWN:
        assert resource.type is ResourceType.KEY
        assert resource.owner == who
        return
    if resource.type is ResourceType.SECRET and resource.owner == who:
        return  # their personal one
    if action is Action.IDENTITY_TOKEN and resource.type is ResourceType.RUN and resource.owner == who:
        return  # a run that is theirs says so
    scopes = covering(resource.project, resource.domain)
    covers = {
        binding
        for binding in given_.items
        if binding.role in set(Role) and (binding.project, binding.domain) in scopes
    }
    inside = {
        binding
        for binding in given_.items
        if binding.role in set(Role) and binding.project in {resource.project, "*"}
    }
    assert covers or (action is Action.PROJECT_VIEW and resource.type is ResourceType.PROJECT and inside)


@settings(max_examples=200, deadline=None)
@given(
    subjects,
    st.lists(st.builds(Binding, role=st.text(max_size=12), project=names, domain=domains), max_size=4),
    acts,
    resources,
)
def test_an_unknown_role_never_allows(
    who: str, given_: list[Binding], action: Action, resource: Resource
) -> None:
    unknown = Bindings.of(binding for binding in given_ if binding.role not in set(Role))
    assert allowed(who, unknown, action, resource) is allowed(who, Bindings.of(()), action, resource)


@settings(max_examples=200, deadline=None)
@given(subjects, bindings, st.builds(Binding, role=roles, project=names, domain=domains), acts, resources)
def test_a_further_role_never_takes_away(
    who: str, given_: Bindings, more: Binding, action: Action, resource: Resource
) -> None:
    if allowed(who, given_, action, resource):
        assert allowed(who, Bindings.of([*given_.items, more]), action, resource)


@settings(max_examples=100, deadline=None)
@given(subjects, bindings, acts, resources, ceilings)
def test_a_remembered_decision_is_the_one_that_a_fresh_engine_makes(
    who: str, given_: Bindings, action: Action, resource: Resource, limits: tuple[Ceiling, ...]
) -> None:
    ask = {
        "subject": who,
        "kind": Kind.USER,
        "bindings": given_,
        "ceilings": limits,
        "action": action,
        "resource": resource,
    }
    warm = ENGINE.decide(**ask)  # type: ignore[arg-type]
    assert ENGINE.decide(**ask) == warm  # type: ignore[arg-type]
    assert Engine().decide(**ask) == warm  # type: ignore[arg-type]


@given(st.text(max_size=6), st.text(max_size=6), st.text(max_size=6), st.text(max_size=6))
def test_no_two_scopes_share_a_group(p: str, d: str, q: str, e: str) -> None:
    assert (group("viewer", p, d) == group("viewer", q, e)) is ((p, d) == (q, e))


def test_memory_of_decisions_is_bounded() -> None:
    engine = Engine(remember=8)
    for number in range(50):
        resource = Resource(ResourceType.TASK, f"p{number}", "development", "x")
        engine.decide(
            subject="alice",
            kind=Kind.USER,
            bindings=Bindings.of(()),
            ceilings=(),
            action=Action.TASK_VIEW,
            resource=resource,
        )
    assert len(engine._known) == 8


@pytest.mark.parametrize(
    "policies",
    [
        pytest.param("permit (principal", id="does not parse"),
        pytest.param(
            "permit (principal, action, resource) when { principal.nothing };", id="not of the schema"
        ),
        pytest.param("permit (principal, action, resource);", id="allows everyone"),
        pytest.param("forbid (principal, action, resource);", id="allows nobody"),
        pytest.param("", id="empty"),
    ],
)
def test_a_broken_policy_set_stops_the_start(policies: str) -> None:
    with pytest.raises(Broken):
        Engine(policies=policies)


def test_the_revision_is_of_the_text() -> None:
    assert Engine().revision == ENGINE.revision
    forbidding = (
        ENGINE_TEXT + '\n@id("no-staging") forbid (principal, action == Action::"task:run", resource is App);'
    )
    assert Engine(policies=forbidding).revision != ENGINE.revision


def test_every_row_is_of_a_method_that_exists_and_no_method_of_its_service_lacks_one() -> None:
    for module in pkgutil.walk_packages(flyteidl2.__path__, "flyteidl2."):
        if module.name.endswith("_pb2"):
            importlib.import_module(module.name)
    pool = descriptor_pool.Default()
    services = {path.split("/")[1] for path in METHODS}
    existing = {
        f"/{service}/{method.name}"
        for service in services
        for method in pool.FindServiceByName(service).methods
    }
    assert existing == METHODS.keys()


def test_a_method_or_route_without_a_row_and_a_row_without_one_stop_the_start() -> None:
    check_complete(METHODS)
    check_complete([*METHODS, *ROUTES])
    one = "/flyteidl2.task.TaskService/ListTasks"
    with pytest.raises(Broken):
        check_complete([*METHODS, "/flyteidl2.task.TaskService/DropTasks"])
    with pytest.raises(Broken):
        check_complete([path for path in METHODS if path != one])
    with pytest.raises(Broken):
        check_complete([*ROUTES, "rest GET /api/v1/absent"])


def test_only_discovery_and_descriptions_answer_anonymous_callers() -> None:
    open_ = {path for path, row in {**METHODS, **ROUTES}.items() if row.anonymous}
    assert {path for path in open_ if path.startswith("/")} == {
        "/flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata",
        "/flyteidl2.auth.AuthMetadataService/GetPublicClientConfig",
    }
