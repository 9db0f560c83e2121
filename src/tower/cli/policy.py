"""`tower policy`: try policies on cases that are data, before or after they are in force."""

from __future__ import annotations

import json
from pathlib import Path

import rich_click as click

from tower.cli.administration import Administration, fail, faults
from tower.errors import Invalid
from tower.policy.cases import Case
from tower.policy.engine import Engine
from tower.policy.rulebook import Rulebook, Written

DIFFERS = 6

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def policy() -> None:
    """Policies that administrators write (`flyte create policy`)."""


@policy.command("test")
@click.argument("cases", type=_FILE)
@click.option("--policy", "texts", type=_FILE, multiple=True, help="A Cedar file to add, or to put in place.")
@click.option("--project", default="*", help="The project that the added files are for.")
@click.option("--domain", default="*", help="The domain that the added files are for.")
@click.option("--empty", is_flag=True, help="Leave out what is in force in the home: built-in policies only.")
@click.pass_obj
@faults
def test(
    tower: Administration, *, cases: Path, texts: tuple[Path, ...], project: str, domain: str, empty: bool
) -> None:
    """Decide every case of the file CASES and say which came out otherwise than it expects.

    CASES is a JSON list of objects: `name`, `bindings` (lists of role, project, domain and perhaps kind and
    name), `groups`, `ceilings`, `action`, `resource` (as `task:P/D/NAME`), `owner`, `allowed`. Ends with 6
    when a case differs.
    """
    rules = Rulebook() if empty else _in_force(tower)
    added = tuple(Written(path.stem, path.read_text(), project, domain) for path in texts)
    names = {each.name for each in added}
    kept = tuple(each for each in rules.policies if each.name not in names)
    engine = Engine(Rulebook((*kept, *added), rules.roles))
    try:
        listed = json.loads(cases.read_text())
    except ValueError as error:
        raise Invalid(f"{cases} is no JSON.", cause=str(error)) from None
    if not isinstance(listed, list):
        raise Invalid(f"{cases} is no JSON list.")
    wrong = 0
    for number, value in enumerate(listed, 1):
        case = Case.read(value, place=f"case {number}")
        decision = case.decide(engine)
        if decision.allowed is not case.allowed:
            wrong += 1
            found = "allowed" if decision.allowed else "refused"
            print(f"{case.name}: {found} by {', '.join(decision.policies) or 'no policy'}")
    if wrong:
        fail(f"{wrong} of {len(listed)} cases came out otherwise.", DIFFERS)
    print(f"{len(listed)} {'case' if len(listed) == 1 else 'cases'} as expected, revision {engine.revision}")


def _in_force(tower: Administration) -> Rulebook:
    found = tower.call("GET", "/policies")["policies"]
    documents = tuple(
        Written(
            each["name"],
            each["text"],
            each["project"],
            each["domain"],
            "task" if each["task"] else "app" if each["app"] else "",
            each["task"] or each["app"],
        )
        for each in found
    )
    roles = {each["name"]: frozenset(each["actions"]) for each in tower.call("GET", "/roles")["roles"]}
    return Rulebook(documents, roles)
