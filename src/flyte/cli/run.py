"""`flyte run FILE TASK` and `flyte run deployed-task NAME`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from . import _inputs
from ._command import Target, enter, narrowed, options
from ._exits import Exit, Failed
from ._output import print_json, print_record
from ._progress import shown, waiting
from ._span import Span
from ._userfile import load, task
from .logs import print_line

if TYPE_CHECKING:
    from flyte._task import Task as LocalTask
    from flyte.remote import Run

DEPLOYED = "deployed-task"
_STANDS = {
    "QUEUED": "QUEUED: it waits for its turn",
    "INITIALIZING": "INITIALIZING: its environment is being made",
}
_WORDS = "flyte.cli.run.words"
_ASKING = frozenset({"-h", "--help"})


class _Command(click.RichCommand):
    """Keeps the words as they came: behind TASK there may be inputs that are called like options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse them. `FILE TASK --help` is answered with the inputs of the task."""
        ctx.meta.setdefault(_WORDS, list(args))
        if not _ASKING.isdisjoint(args):
            found, _, _ = self.make_parser(ctx).parse_args([word for word in args if word not in _ASKING])
            source, name = found.get("source"), found.get("name")
            if isinstance(source, str) and isinstance(name, str) and source != DEPLOYED:
                click.echo("\n".join(_inputs.help_of(_task_in(source, name), source, name)))
                ctx.exit()
        return list(super().parse_args(ctx, args))


@click.command("run", cls=_Command, context_settings={"ignore_unknown_options": True}, no_args_is_help=True)
@click.argument("source", metavar=f"FILE|{DEPLOYED}")
@click.argument("name", metavar="TASK")
@click.argument("rest", metavar="[--INPUT VALUE]...", nargs=-1, type=click.UNPROCESSED)
@click.option("-i", "--input", "pairs", metavar="NAME=VALUE", multiple=True, help="An input.")
@click.option("--inputs", "text", metavar="JSON", help="Inputs as one JSON object.")
@click.option("--version", help="A version of a deployed task. [default: the latest]")
@click.option("--name", "run_name", help="What to call the run. [default: a generated name]")
@click.option(
    "--grant", type=Span(), help="How long it acts for you at most: 12h, 7d. [default: as Tower says]"
)
@click.option("--wait", is_flag=True, help="Wait for the end; status 7 if the run does not succeed.")
@click.option("-f", "--follow", is_flag=True, help="Wait, and print its logs to standard error meanwhile.")
@click.option("--local", is_flag=True, help="Run FILE's TASK in this process, without a control plane.")
@options
@click.pass_context
def run(context: click.Context, /, **given: Any) -> None:
    """Run a task as yourself.

    With FILE, TASK is the function or the variable in it; it is deployed first, under a version that its code
    decides. With deployed-task, TASK is the name of a deployed one, environment.function.

    Inputs are written --x 1, --input x=1, or --inputs '{"x": 1}'. An option that stands behind the TASK of a
    FILE and is called like one of its inputs is that input. A text for a string stands for itself; anything
    else is read as JSON. `flyte run FILE TASK --help` lists the inputs, as does `flyte get task NAME`.
    """
    if given["source"] != DEPLOYED:
        given = _reread(context, given)
    if given.pop("local"):
        narrowed(context.obj, given)
        _in_this_process(**given)
        return
    source, name = given.pop("source"), given.pop("name")
    if source != DEPLOYED and given["version"] is not None:
        raise click.UsageError(f"--version goes with {DEPLOYED}; the code of a file decides its version.")
    # A file is loaded before there is an event loop: it may use one of its own.
    declared = None if source == DEPLOYED else _task_in(source, name)
    enter(context, _start, {**given, "name": name, "declared": declared})


async def _start(
    target: Target,
    *,
    name: str,
    declared: LocalTask[..., Any] | None,
    rest: tuple[str, ...],
    pairs: tuple[str, ...],
    text: str | None,
    version: str | None,
    run_name: str | None,
    grant: timedelta | None,
    wait: bool,
    follow: bool,
) -> int:
    from flyte._run import with_runcontext

    texts, given = _inputs.collected(rest, pairs), _inputs.document(text)
    chosen: Any
    if declared is None:
        from flyte.remote import Task

        chosen = Task.get(name, version=version)
        inputs = _inputs.values((await chosen.fetch.aio()).interface, texts, given)
    else:
        chosen = declared
        inputs = _inputs.typed(chosen.interface, _inputs.values(chosen.interface, texts, given))
    started = await with_runcontext(name=run_name, grant=grant).run.aio(chosen, **inputs)
    if not (wait or follow):
        print_record({**started.summary(), "error": None, "outputs": None}, output=target.output)
        return Exit.OK
    await _watch(started, follow=follow)
    print_record(await started.to_dict.aio(), output=target.output)
    return Exit.OK if started.phase.is_good else Exit.RUN_FAILED


async def _watch(started: Run, *, follow: bool) -> None:
    """Wait for the end, telling on standard error how it goes."""
    click.echo(f"{started.name}  {started.url}", err=True)
    if follow:
        async for line in started.logs.aio():
            print_line(line, err=True)
    with waiting(f"Run {started.name}") as progress:
        building = asyncio.ensure_future(_tell_image(started, progress)) if shown() and not follow else None
        try:
            async for state in started.watch.aio():
                progress(_STANDS.get(state.phase, str(state.phase)))
        finally:
            if building is not None:
                building.cancel()
                await asyncio.gather(building, return_exceptions=True)


async def _tell_image(started: Run, progress: Callable[[str], None]) -> None:
    """What a log says while the image is made: a first run may take minutes, and this is why."""
    from flyte._deploy.release import IMAGE_LINE
    from flyte.remote import Run

    # asked for anew: what this one learns must not get before what is waited for
    run = await Run.get.aio(started.name, project=started.project, domain=started.domain)
    async for line in run.logs.aio():
        if not line.text.startswith(IMAGE_LINE):
            return
        progress(f"its image: {line.text.removeprefix(IMAGE_LINE)}")


def _reread(context: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters, where the words behind TASK that name its inputs are inputs and not options."""
    source, name = given["source"], given["name"]
    options = {word[2:] for each in run.params for word in each.opts if word.startswith("--")}
    inputs = options & _task_in(source, name).interface.by_name.keys()
    words: list[str] = context.meta[_WORDS]
    behind = words.index(name, words.index(source) + 1) + 1
    changed, left = words[:behind], iter(words[behind:])
    for word in left:
        called, equals, value = word[2:].partition("=")
        if word.startswith("--") and called in inputs:
            changed += ["--input", f"{called}={value if equals else next(left, '')}"]
        else:
            changed.append(word)
    if changed == words:
        return given
    return run.make_context(context.info_name, changed, parent=context.parent).params


def _task_in(source: str, name: str) -> Any:
    path = Path(source)
    if not path.is_file():
        raise click.UsageError(
            f"There is no file {source}; for a deployed task write `flyte run {DEPLOYED} NAME`."
        )
    return task(load(path), name)


def _in_this_process(
    *, source: str, name: str, rest: tuple[str, ...], pairs: tuple[str, ...], text: str | None, **_: Any
) -> None:
    if source == DEPLOYED:
        raise click.UsageError("--local goes with FILE: a deployed task runs where it is deployed.")
    chosen = _task_in(source, name)
    jsonlike = _inputs.values(chosen.interface, _inputs.collected(rest, pairs), _inputs.document(text))
    inputs = _inputs.typed(chosen.interface, jsonlike)
    try:
        result = chosen.function(**inputs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except Exception as error:
        failed = Failed.in_user_code(error, inspect.getsourcefile(chosen.function) or source)
        raise Failed(failed.message, Exit.RUN_FAILED) from error
    print_json(result)
