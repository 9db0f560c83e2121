"""Tasks written with the official SDK, deployed by `deploy.py` beside this file and hosted by Tower."""

import asyncio
import os
import subprocess
from pathlib import Path

from flyte.io import Dir, File

import flyte
import flyte.remote as remote

env = flyte.TaskEnvironment(name="official")
vault = flyte.TaskEnvironment(name="vault")
knowing = flyte.TaskEnvironment(
    name="knowing", secrets=[flyte.Secret(key="official-secret", as_env_var="WORD")]
)
filed = flyte.TaskEnvironment(
    name="filed",
    secrets=[
        flyte.Secret(key="official-file", mount="/etc/flyte/secrets"),
        flyte.Secret(key="official-secret", mount="/etc/flyte/secrets", as_env_var="BOTH"),
    ],
)
packed = flyte.TaskEnvironment(
    name="packed",
    image=flyte.Image.from_debian_base(name="packed")
    .with_pip_packages("iniconfig==2.1.0")
    .with_env_vars({"COLOUR": "blue"}),
)


@env.task
async def hello(x: int, y: str = "hello") -> str:
    user = await remote.User.get.aio()
    return f"{y} {x} as {user.subject()}"


@env.task
async def double(x: int) -> int:
    return 2 * x


@env.task
async def outer(x: int) -> int:
    first = await double(x)
    return first + sum(await asyncio.gather(double(x), double(x + 1)))


@env.task
async def fails(x: int) -> int:
    raise ValueError(f"no good {x}")


@env.task
async def passes_on(x: int) -> int:
    return await fails(x)


@env.task
async def makes(text: str) -> tuple[File, Dir]:
    folder = Path("made")
    folder.joinpath("deep").mkdir(parents=True)
    folder.joinpath("deep", "more.txt").write_text(f"more {text}")
    Path("text.txt").write_text(text)
    return await File.from_local("text.txt"), await Dir.from_local("made")


@env.task
async def reads_files(file: File, folder: Dir) -> str:
    async with file.open("rb") as opened:
        text = bytes(await opened.read()).decode()
    place = await folder.download()
    return f"{text}, {Path(place, 'deep', 'more.txt').read_text()}"


@env.task
async def passes_files(text: str) -> str:
    file, folder = await makes(text)
    async with file.open("rb") as opened:
        assert bytes(await opened.read()).decode() == text
    return await reads_files(file, folder)


@env.task
async def surroundings() -> dict[str, str]:
    """What the task can see of itself, and what it cannot."""
    ctx = flyte.ctx()
    me = Path("/proc/self")
    visible = me.joinpath("environ").read_text() + me.joinpath("cmdline").read_text()
    visible += "".join(path.read_text(errors="replace") for path in Path.cwd().rglob("*") if path.is_file())
    return {
        "run": ctx.action.run_name,
        "action": ctx.action.name,
        "project": ctx.action.project,
        "visible": visible,
    }


@env.task
async def launches(x: int) -> str:
    """A run of its own, asked for from inside."""
    task = remote.Task.get(name="official.double", auto_version="latest")
    run = await flyte.run.aio(task, x=x)
    await run.wait.aio(quiet=True)
    outputs = await run.outputs.aio()
    return f"{run.name} {outputs[0]}"


@env.task
async def reaches(x: int) -> str:
    """A child of another domain, which not everybody who may run this one may run."""
    task = remote.Task.get(name="vault.unlock", domain="staging", auto_version="latest")
    return await task(x=x)


@env.task
async def takes_token(plainly: bool) -> str:
    """What no task should do: give its token away."""
    import json

    done = subprocess.run(
        json.loads(os.environ["FLYTE_AUTH_COMMAND"]), capture_output=True, text=True, check=True
    )
    token = done.stdout.strip()
    print("it is", token)
    return token if plainly else token[::-1]


@env.task
async def lingers() -> None:
    """Shows its token in a way that nobody masks, and stays."""
    import json

    done = subprocess.run(
        json.loads(os.environ["FLYTE_AUTH_COMMAND"]), capture_output=True, text=True, check=True
    )
    print("backwards", done.stdout.strip()[::-1], flush=True)
    await asyncio.Event().wait()


@knowing.task
async def knows() -> str:
    print("told", os.environ["WORD"])
    return os.environ["WORD"][::-1]


@filed.task
async def knows_file() -> list[str]:
    folder = Path(os.environ["FLYTE_SECRETS_DIR"])
    path = folder / "official-file"
    said = Path("/etc/flyte/secrets/official-file")
    print("told", path.read_text(), os.environ["BOTH"])
    return [
        path.read_text()[::-1],
        oct(folder.stat().st_mode & 0o777),
        oct(path.stat().st_mode & 0o777),
        said.read_text()[::-1] if said.exists() else "nowhere else",
        " ".join(sorted(each.name for each in folder.iterdir())),
        os.environ["BOTH"][::-1],
    ]


@filed.task
async def returns_file() -> str:
    return (Path(os.environ["FLYTE_SECRETS_DIR"]) / "official-file").read_text()


@packed.task
async def reads(text: str) -> str:
    import iniconfig  # what the image adds

    found = iniconfig.IniConfig("given", data=text)
    return f"{found['a']['b']} {os.environ['COLOUR']}"


@vault.task
async def unlock(x: int) -> str:
    return f"unlocked {x}"
