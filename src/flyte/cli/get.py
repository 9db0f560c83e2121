"""`flyte get run|task|app|api-key [NAME]`: one thing in full, or a list."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import rich_click as click

from ._command import Group, Target, remote
from ._output import print_record, print_records

_LIMIT = click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many at most."
)


@click.group(
    "get",
    cls=Group,
    lazy={
        "trigger": "_triggers:get_trigger",
        "user": "_admin:get_user",
        "service": "_admin:get_service",
        "group": "_admin:get_group",
        "role": "_admin:get_role",
        "binding": "_bindings:get_binding",
        "policy": "_admin:get_policy",
        "secret": "_secret:get_secret",
        "audit": "_audit:audit",
        "app-ceiling": "_ceilings:get_ceiling",
        "grant": "_grants:get_grant",
    },
)
def get() -> None:
    """Show runs, tasks, apps, triggers, secrets, API keys, grants, limits of apps, the audit trail, or who
    may do what.
    """


@get.command("run")
@click.argument("name", required=False)
@click.option("--only-mine", is_flag=True, help="Runs that run as you.")
@click.option("--phase", multiple=True, help="Runs in this phase, such as FAILED; may be repeated.")
@click.option("--task", "task_name", help="Runs of this task, environment.function.")
@_LIMIT
@remote
async def run(  # noqa: PLR0917 - the options of one command
    target: Target,
    name: str | None,
    only_mine: bool,
    phase: tuple[str, ...],
    task_name: str | None,
    limit: int,
) -> None:
    """Show the run NAME with its outputs, or list runs, newest first."""
    from flyte.remote import Run

    if name is not None:
        found = await Run.get.aio(name)
        print_record(await found.to_dict.aio(), output=target.output)
        return
    listed = Run.listall.aio(only_mine=only_mine, phase=_phases(phase), task_name=task_name, limit=limit)
    records = [each.summary() async for each in listed]
    print_records(
        records,
        columns=("name", "phase", "task", "executed_by", "via_app", "created_at"),
        output=target.output,
        empty=_none("runs"),
    )


@get.command("task")
@click.argument("name", required=False)
@click.option("--version", help="A version. [default: the latest]")
@_LIMIT
@remote
async def task(target: Target, name: str | None, version: str | None, limit: int) -> None:
    """Show the task NAME with its inputs and outputs, or list tasks."""
    from flyte.remote import Task

    if name is not None:
        details = _details(await Task.get(name, version=version).fetch.aio())
        print_record(details if target.output == "json" else _in_words(details), output=target.output)
        return
    records = [each.to_dict() async for each in Task.listall.aio(limit=limit)]
    columns = ("name", "version", "deployed_by", "deployed_at")
    print_records(records, columns=columns, output=target.output, empty=_none("tasks"))


@get.command("app")
@click.argument("name", required=False)
@_LIMIT
@remote
async def app(target: Target, name: str | None, limit: int) -> None:
    """Show the app NAME, or list apps."""
    from flyte.remote import App

    if name is not None:
        print_record((await App.get.aio(name)).to_dict(), output=target.output)
        return
    records = [each.to_dict() async for each in App.listall.aio(limit=limit)]
    columns = ("name", "status", "endpoint", "description")
    print_records(records, columns=columns, output=target.output, empty=_none("apps"))


@get.command("api-key")
@click.argument("name", required=False)
@click.option("--user", help="Whose key or keys, for who manages them. [default: yours, or all]")
@remote
async def api_key(target: Target, name: str | None, user: str | None) -> None:
    """Print the API key NAME if this machine has it, otherwise what the control plane knows; or list keys.

    The control plane stores a hash and cannot show a key again. A key that was made on this machine is kept
    in ~/.flyte/keys.json (or $FLYTE_HOME) and printed from there, alone on standard output.
    """
    from flyte._init import current_session

    from ._keystore import Keystore
    from .create import key_path

    session = current_session()
    if name is None:
        whose = "" if user is None else f"?{urlencode({'user': user})}"
        answer = await session.json("GET", f"/api/v1/keys{whose}")
        columns = ("name", "user", "role", "project", "domain", "disabled", "expires_at", "last_used_at")
        print_records(answer["keys"], columns=columns, output=target.output)
        return
    record: dict[str, Any] = await session.json("GET", key_path(name, user))
    stored = Keystore().find(session.endpoint, name=name, user=record["user"])
    # A key of this name may have been deleted and made anew elsewhere: the id tells.
    text = stored.key if stored is not None and stored.id == record["id"] else None
    if target.output == "json":
        print_record({**record, "key": text}, output="json")
    elif text is not None:
        click.echo(text)
    else:
        print_record(record, output="table")
    if text is None:
        click.echo(
            f"This machine does not have the key, and the control plane keeps only its hash. To replace it: "
            f"flyte update api-key {name}{'' if user is None else f' --user {user}'} --rotate",
            err=True,
        )


def _none(things: str) -> str:
    """What is said in place of a list: an empty one is also what a mistyped project gives."""
    from flyte._init import current_session

    project, domain = current_session().scope(None, None)
    return f"There are no such {things} in {project}/{domain}, or none that you may see."


def _phases(names: tuple[str, ...]) -> tuple[str, ...] | None:
    from flyte.remote import Phase

    unknown = [name for name in names if name.upper() not in Phase.__members__]
    if unknown:
        known = ", ".join(list(Phase)[1:])
        raise click.BadParameter(f"{unknown[0]!r} is none of {known}.", param_hint="--phase")
    return names or None


def _details(details: Any) -> dict[str, Any]:
    interface = details.interface
    return {
        "name": details.name,
        "version": details.version,
        "project": details.project,
        "domain": details.domain,
        "environment": details.environment,
        "image": details.image,
        "privileges": list(details.privileges),
        "deployed_by": details.deployed_by,
        "deployed_at": details.deployed_at,
        "inputs": {
            each.name: {"type": each.codec.label, "required": each.required} for each in interface.inputs
        },
        "outputs": {each.name: {"type": each.codec.label} for each in interface.outputs},
    }


def _in_words(details: dict[str, Any]) -> dict[str, Any]:
    """The interface of a task as one reads it: `n: int, rate: float (optional)`."""
    sides = {
        side: [
            f"{name}: {each['type']}" + ("" if each.get("required", True) else " (optional)")
            for name, each in details[side].items()
        ]
        for side in ("inputs", "outputs")
    }
    return {**details, **sides}
