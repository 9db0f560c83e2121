"""What the command line tells beginners: help, and messages in its own words."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.tower_process import BIN, clean_environment

from flyte import errors
from flyte.cli._exits import MEANING, Exit, Failed
from flyte.cli._root import flyte

TASKS = '''
import enum
import flyte

env = flyte.TaskEnvironment(name="train")

class Colour(enum.Enum):
    RED = "red"

@env.task
def score(n: int, rate: float = 0.5, colour: Colour = Colour.RED, tags: list[str] | None = None) -> float:
    """Score what there is.

    At length.
    """
    return n * rate

@env.task
def nothing() -> None: ...
'''


def run(*arguments: str, **env: str | None) -> Result:
    clean: dict[str, str | None] = {"FLYTE_ENDPOINT": None, "FLYTE_API_KEY": None, "FLYTE_CONFIG": None}
    return CliRunner().invoke(flyte, arguments, env={**clean, **env}, prog_name="flyte")


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / f"{tmp_path.name}.py"  # a name of its own: a module is loaded once a process
    path.write_text(TASKS)
    return str(path)


def test_help_behind_a_task_lists_its_inputs(file: str) -> None:
    """Without a control plane: nothing is deployed to be read about."""
    done = run("run", "--wait", file, "score", "--help")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"Usage: flyte run [OPTIONS] {file} score [--INPUT VALUE]...",
        "",
        "  Score what there is.",
        "",
        "Inputs:",
        "  --n       int               required",
        "  --rate    float             default: 0.5",
        "  --colour  Colour            default: RED",
        "  --tags    list[str] | None  default: none",
        "",
        "`flyte run --help` lists the options.",
    ]
    assert "It takes no inputs." in run("run", "-h", file, "nothing").stdout


def test_help_without_a_task_is_that_of_the_command(file: str) -> None:
    for arguments in (("run", "--help"), ("run", file, "-h"), ("run", "deployed-task", "x.y", "--help")):
        done = run(*arguments)
        assert done.exit_code == 0
        assert "--inputs" in done.stdout
    missing = run("run", file, "scor", "--help")
    assert missing.exit_code == 2
    assert "it has: nothing, score" in missing.stderr


def test_help_tells_every_exit_status() -> None:
    told = run("--help").stdout
    assert set(MEANING) == set(Exit)
    for status, text in MEANING.items():
        assert f"{int(status)}  {text}" in told


@pytest.mark.parametrize("verb", ["create", "get", "update", "delete"])
def test_the_help_of_a_group_names_what_is_in_it(verb: str) -> None:
    group = flyte.get_command(None, verb)  # type: ignore[arg-type]  # it asks nothing of a context
    assert group is not None
    listed = [each.name for name in group.list_commands(None) if (each := group.get_command(None, name))]
    assert listed == group.list_commands(None), "one is listed under another's name"
    said = " ".join((group.help or "").lower().split())
    for noun in listed:
        word = {"api-key": "api key", "app-ceiling": "limit", "policy": "polic", "audit": "audit"}.get(
            noun, noun
        )
        covered = "who may do what" in said and noun in {
            "user",
            "service",
            "group",
            "role",
            "binding",
            "policy",
        }
        assert word in said or covered, f"the help of {verb} does not name {noun}"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            errors.InitializationError("No endpoint.", hint="Pass endpoint=..., or set FLYTE_ENDPOINT."),
            "No endpoint. Pass --endpoint, or set FLYTE_ENDPOINT.",
        ),
        (
            errors.InitializationError("Plain HTTP.", hint="Use https://, or insecure=True if you know."),
            "Plain HTTP. Use https://, or --insecure if you know.",
        ),
        (
            errors.UntrustedServerError("Not trusted.", hint="Name it by ca_file= or FLYTE_CA_FILE."),
            "Not trusted. Name it by --ca-file or FLYTE_CA_FILE.",
        ),
        (
            errors.RemoteTaskUsageError("input 'project': project=7 is no text."),
            "input 'project': project=7 is no text.",
        ),
    ],
)
def test_messages_name_options_and_no_arguments_of_python(error: errors.FlyteError, told: str) -> None:
    assert Failed.of(error).message == told.strip()


def test_no_endpoint_plain_http_and_no_tls(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "FLYTE_HOME": str(tmp_path), "FLYTE_API_KEY": "twr_x"}
    for endpoint, status, remedy in (
        ("", 2, "--endpoint"),
        ("http://example.org", 2, "--insecure"),
        ("http://127.0.0.1:9", 6, "running"),
    ):
        done = run("whoami", **{**home, "FLYTE_ENDPOINT": endpoint or None})
        assert done.exit_code == status, done.stderr
        assert remedy in done.stderr
        assert "=True" not in done.stderr
        assert "=..." not in done.stderr


@pytest.mark.parametrize("program", ["flyte", "tower"])
@pytest.mark.parametrize("vendor", ["CI", "GITHUB_ACTIONS"])
def test_a_log_gets_no_colours(program: str, vendor: str) -> None:
    environment = clean_environment({vendor: "true"})
    for name in ("FORCE_COLOR", "PY_COLORS"):
        environment.pop(name, None)
    for arguments in (["--help"], ["no-such-command"]):
        done = subprocess.run(
            [BIN / program, *arguments], env=environment, capture_output=True, check=False, timeout=60
        )
        assert b"\x1b" not in done.stdout + done.stderr, arguments


def test_a_file_that_cannot_be_loaded_is_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "sched.py"
    path.write_text("import flyte\n")
    done = run("deploy", str(path), "env")
    assert done.exit_code == 2
    assert "Rename the file." in done.stderr


def test_serve_names_the_command_for_tasks(file: str) -> None:
    done = run("serve", file, "env")
    assert done.exit_code == 2
    assert f"env is no app; its tasks are deployed by `flyte deploy {file} env`." in done.stderr


def test_doctor_speaks_of_options(tmp_path: Path) -> None:
    done = run("doctor", HOME=str(tmp_path), FLYTE_HOME=str(tmp_path))
    assert done.exit_code == 1
    assert "--endpoint" in done.stdout + done.stderr
    assert "endpoint=" not in done.stdout + done.stderr
