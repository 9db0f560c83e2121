"""Deploying over real HTTP to a recorded control plane."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from flyteidl2.app import app_definition_pb2 as apps
from flyteidl2.app import app_payload_pb2 as app_wire
from flyteidl2.core import tasks_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as data
from flyteidl2.task import task_service_pb2 as tasks
from tests.flyte.plane import Plane, Raw, Refusal, Seen, Stream

import flyte
from flyte import _deploy, _environment, _init
from flyte._deploy import Loaded, Place, Progress, load_file, plan
from flyte._syncify import syncify
from flyte.errors import DeclarationError, DeploymentError, InitializationError, PermissionDeniedError

UPLOAD = "/flyteidl2.dataproxy.DataProxyService/CreateUploadLocation"
DEPLOY = "/flyteidl2.task.TaskService/DeployTask"
APPS = "/flyteidl2.app.AppService/"
PUT = "/data/upload/ticket"

CODE = '''
from __future__ import annotations
import datetime
import flyte
from flyte.app import AppEnvironment, Link, Scaling
import {name}_parts.extra as extra

image = flyte.Image.from_debian_base("3.12").with_pip_packages("fastapi").with_requirements("needs.txt")
base = flyte.TaskEnvironment("base")
env = flyte.TaskEnvironment(
    "jobs",
    image=image,
    resources=flyte.Resources(cpu=("500m", 1), memory="512Mi"),
    env_vars={{"B": "2", "A": "1"}},
    description="all the jobs",
    depends_on=[base, extra.env],
)

@base.task
def ping() -> None: ...

@env.task(retries=3, timeout=flyte.Timeout(max_runtime=60, max_queued_time=90), short_name="dbl")
async def double(x: int, y: str = "hello", when: datetime.datetime | None = None) -> tuple[int, str]:
    """Double a number.

    At length.
    """
    return 2 * x, y

async def asgi(scope, receive, send): ...

class MyApp(AppEnvironment):
    def asgi(self):
        return asgi

web = MyApp(
    "web-app", image=image, description="a page", requires_auth=False, public_paths=["/health"],
    scaling=Scaling(replicas=(1, 3), scaledown_after=60), links=[Link("/docs", "Docs")],
    depends_on=[env], env_vars={{"C": "3"}},
)
tool = AppEnvironment("tool-app", command=["run", "--on", "$FLYTE_APP_SOCKET"], passthrough="raw")
'''
EXTRA = """
import flyte
env = flyte.TaskEnvironment("extra")

@env.task
def more(n: list[int]) -> dict[str, int]:
    return {}
"""
_count = iter(range(1000))


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Loaded]:
    """A loaded file of a name that no other test has, and what it needs."""
    name = f"deployed{next(_count)}"
    root = tmp_path / "code"
    (root / f"{name}_parts").mkdir(parents=True)
    (root / f"{name}.py").write_text(CODE.format(name=name))
    (root / f"{name}_parts" / "__init__.py").touch()
    (root / f"{name}_parts" / "extra.py").write_text(EXTRA)
    (root / "needs.txt").write_text("uvicorn>=0.30  # server\n\n# a note\nhttpx\n")
    (root / "unused.py").write_text("")
    (root / ".env").write_text("TOKEN=x")
    before, declared = list(sys.path), list(_environment._declared)
    yield load_file(root / f"{name}.py")
    sys.path[:] = before
    _environment._declared[:] = declared


@pytest.fixture
def server(plane: Plane, bare: pytest.MonkeyPatch) -> Iterator[Plane]:
    """A control plane that accepts everything."""
    plane.on(
        UPLOAD,
        lambda seen: data.CreateUploadLocationResponse(
            signed_url=plane.url + PUT,
            native_url=f"tower://bundles/{seen.message(data.CreateUploadLocationRequest).filename}",
            headers={"x-extra": "1"},
        ),
    )
    plane.on(PUT, Raw(status=200))
    plane.on(DEPLOY, tasks.DeployTaskResponse())
    plane.on(APPS + "Create", lambda seen: app_wire.CreateResponse(app=running(created(seen))))
    flyte.init(endpoint=plane.url, api_key="twr_key", project="flytesnacks", domain="development")
    yield plane
    syncify(_init.current_session().aclose)()


def created(seen: Seen) -> apps.App:
    return seen.message(app_wire.CreateRequest).app


def running(app: apps.App, status: str = "ACTIVE", message: str = "", revision: int = 1) -> apps.App:
    made = apps.App()
    made.CopyFrom(app)
    made.metadata.revision = revision
    made.status.ingress.public_url = f"http://{app.metadata.id.name}.apps.localhost"
    made.status.conditions.add(
        deployment_status=apps.Status.DeploymentStatus.Value(f"DEPLOYMENT_STATUS_{status}"), message=message
    )
    return made


def requests(plane: Plane, path: str) -> list[Seen]:
    return [seen for seen in plane.seen if seen.path == path]


def deployed(plane: Plane) -> dict[str, tasks.DeployTaskRequest]:
    messages = [seen.message(tasks.DeployTaskRequest) for seen in requests(plane, DEPLOY)]
    return {message.task_id.name: message for message in messages}


def test_tasks_and_what_they_depend_on(server: Plane, loaded: Loaded) -> None:
    steps: list[Progress] = []
    done = flyte.deploy(loaded.environment("env"), progress=steps.append)
    found = deployed(server)
    name = loaded.module.__name__
    assert sorted(found) == ["base.ping", "extra.more", "jobs.double"]
    assert {each.name for each in done.tasks} == set(found)
    assert all(message.task_id.version == done.version for message in found.values())
    request = found["jobs.double"]
    assert (request.task_id.project, request.task_id.domain) == ("flytesnacks", "development")
    spec = request.spec
    template = spec.task_template
    assert list(template.container.args) == [
        *("flyte-runtime", "task", "--module", name, "--task", "jobs.double")
    ]
    assert list(found["extra.more"].spec.task_template.container.args)[3] == f"{name}_parts.extra"
    assert template.id.name == "jobs.double"
    assert template.id.version == done.version
    assert template.metadata.retries.retries == 3
    assert template.metadata.timeout.seconds == 60
    assert template.metadata.timeouts.queued_timeout.seconds == 90
    assert template.metadata.code_bundle_uri == f"tower://bundles/{done.bundle}.tar.gz"
    assert [(pair.key, pair.value) for pair in template.container.env] == [("A", "1"), ("B", "2")]
    image = json.loads({pair.key: pair.value for pair in template.container.config}["flyte.image"])
    assert image == {
        "base": "debian",
        "python": "3.12",
        "pip_packages": ["fastapi"],
        "apt_packages": [],
        "requirements": ["uvicorn>=0.30", "httpx"],
        "env_vars": {},
    }
    assert template.container.image.startswith("tower/")
    names = tasks_pb2.Resources.ResourceName.Name
    resources = template.container.resources
    assert {names(entry.name): entry.value for entry in resources.requests} == {
        "CPU": "500m",
        "MEMORY": "512Mi",
    }
    assert {names(entry.name): entry.value for entry in resources.limits} == {"CPU": "1", "MEMORY": "512Mi"}
    assert [entry.key for entry in template.interface.inputs.variables] == ["x", "y", "when"]
    assert [entry.key for entry in template.interface.outputs.variables] == ["o0", "o1"]
    assert [each.name for each in spec.default_inputs] == ["y", "when"]
    assert spec.default_inputs[0].parameter.default.scalar.primitive.string_value == "hello"
    assert (spec.short_name, spec.environment.name, spec.environment.description) == (
        "dbl",
        "jobs",
        "all the jobs",
    )
    assert spec.documentation.short_description == "Double a number."
    assert {step.step for step in steps} == {"pack", "upload", "task"}
    assert steps[-1] == Progress("task", "extra.more", 3, 3)


def test_the_bundle_is_what_was_imported(server: Plane, loaded: Loaded) -> None:
    done = flyte.deploy(loaded.environment("env"))
    (location,) = [seen.message(data.CreateUploadLocationRequest) for seen in requests(server, UPLOAD)]
    (put,) = requests(server, PUT)
    name = loaded.module.__name__
    assert location.filename == f"{done.bundle}.tar.gz" == f"{hashlib.sha256(put.body).hexdigest()}.tar.gz"
    md5 = hashlib.md5(put.body).digest()
    assert location.content_md5 == md5
    assert location.content_length == len(put.body)
    assert put.header("content-md5") == base64.b64encode(md5).decode()
    assert put.header("x-extra") == "1"
    assert put.header("authorization") is None
    with tarfile.open(fileobj=io.BytesIO(put.body)) as tar:
        assert tar.getnames() == [f"{name}.py", f"{name}_parts/__init__.py", f"{name}_parts/extra.py"]


def test_all_files_on_request(server: Plane, loaded: Loaded) -> None:
    done = flyte.deploy(loaded.environment("env"), copy_style="all")
    assert "unused.py" in done.files
    assert ".env" not in done.files
    assert done.left_out == (".env: looks like a credential",)


def test_the_version_follows_code_and_declarations(server: Plane, loaded: Loaded) -> None:
    first = flyte.deploy(loaded.environment("env"))
    assert flyte.deploy(loaded.environment("env")).version == first.version
    (loaded.root / "needs.txt").write_text("httpx\n")
    second = flyte.deploy(loaded.environment("env"))
    assert second.bundle == first.bundle
    assert second.version != first.version
    loaded.path.write_text(loaded.path.read_text() + "\n")
    third = flyte.deploy(loaded.environment("env"))
    assert third.bundle != second.bundle
    assert third.version != second.version
    assert flyte.deploy(loaded.environment("env"), version="v7").version == "v7"


def test_a_server_that_has_the_bundle_is_sent_none(server: Plane, loaded: Loaded) -> None:
    server.on(UPLOAD, data.CreateUploadLocationResponse(native_url="tower://bundles/known"))
    flyte.deploy(loaded.environment("env"))
    assert requests(server, PUT) == []
    found = deployed(server)["jobs.double"]
    assert found.spec.task_template.metadata.code_bundle_uri == "tower://bundles/known"


@pytest.mark.parametrize(
    ("refusal", "error", "words"),
    [
        (Refusal("already_exists", status=409), DeploymentError, "other content"),
        (Refusal("invalid_argument", "bad image"), DeploymentError, "bad image"),
        (Refusal("permission_denied", "not here", status=403), PermissionDeniedError, "not here"),
    ],
)
def test_what_the_server_refuses(
    server: Plane, loaded: Loaded, refusal: Refusal, error: type[Exception], words: str
) -> None:
    server.on(DEPLOY, refusal)
    with pytest.raises(error, match=words):
        flyte.deploy(loaded.environment("env"))


def test_a_project_is_needed_before_anything_is_sent(
    plane: Plane, bare: pytest.MonkeyPatch, loaded: Loaded
) -> None:
    flyte.init(endpoint=plane.url, api_key="twr_key")
    with pytest.raises(InitializationError, match="project"):
        flyte.deploy(loaded.environment("env"))
    assert plane.seen == []


def test_serve_creates_an_app_and_its_tasks(server: Plane, loaded: Loaded) -> None:
    served = flyte.serve(loaded.environment("web"))
    assert served.url == "http://web-app.apps.localhost"
    assert served.page == f"{server.url}/v2/domain/development/project/flytesnacks/apps/web-app"
    assert (served.status, served.revision) == ("ACTIVE", 1)
    assert sorted(deployed(server)) == ["base.ping", "extra.more", "jobs.double"]
    (seen,) = requests(server, APPS + "Create")
    app = created(seen)
    identity = app.metadata.id
    assert (identity.project, identity.domain, identity.name) == ("flytesnacks", "development", "web-app")
    assert app.metadata.code_bundle_uri.startswith("tower://bundles/")
    spec = app.spec
    assert list(spec.container.args) == [
        *("flyte-runtime", "app", "--module", loaded.module.__name__, "--app", "web-app")
    ]
    config = {pair.key: pair.value for pair in spec.container.config}
    assert config["flyte.passthrough"] == "exchange"
    assert json.loads(config["flyte.public_paths"]) == ["/health"]
    assert json.loads(config["flyte.image"])["python"] == "3.12"
    assert spec.security_context.allow_anonymous
    assert spec.HasField("ingress")
    assert spec.desired_state == apps.Spec.DESIRED_STATE_ACTIVE
    assert (spec.autoscaling.replicas.min, spec.autoscaling.replicas.max) == (1, 3)
    assert spec.autoscaling.scaledown_period.seconds == 60
    assert spec.profile.short_description == "a page"
    assert [(link.path, link.title, link.is_relative) for link in spec.links] == [("/docs", "Docs", True)]
    assert requests(server, APPS + "Watch") == []


def test_an_app_with_a_command(server: Plane, loaded: Loaded) -> None:
    flyte.serve(loaded.environment("tool-app"))
    spec = created(requests(server, APPS + "Create")[0]).spec
    assert list(spec.container.command) == ["run", "--on", "$FLYTE_APP_SOCKET"]
    assert list(spec.container.args) == []
    assert {pair.key: pair.value for pair in spec.container.config}["flyte.passthrough"] == "raw"
    assert not spec.security_context.allow_anonymous


@pytest.mark.parametrize("code", ["already_exists", "aborted"])
def test_an_app_that_exists_is_updated(server: Plane, loaded: Loaded, code: str) -> None:
    old = apps.App()
    old.metadata.id.CopyFrom(apps.Identifier(project="flytesnacks", domain="development", name="web-app"))
    server.on(APPS + "Create", Refusal(code, status=409))
    server.on(APPS + "Get", app_wire.GetResponse(app=running(old, revision=4)))
    server.on(
        APPS + "Update",
        lambda seen: app_wire.UpdateResponse(
            app=running(seen.message(app_wire.UpdateRequest).app, "PENDING", revision=5)
        ),
    )
    server.on(
        APPS + "Watch",
        Stream(
            [
                app_wire.WatchResponse(
                    update_event=app_wire.UpdateEvent(updated_app=running(old, "PENDING"))
                ),
                app_wire.WatchResponse(
                    update_event=app_wire.UpdateEvent(updated_app=running(old, "ACTIVE", revision=5))
                ),
            ]
        ),
    )
    served = flyte.serve(loaded.environment("web"))
    assert (served.status, served.revision) == ("ACTIVE", 5)
    (seen,) = requests(server, APPS + "Update")
    update = seen.message(app_wire.UpdateRequest).app
    assert update.metadata.revision == 4
    assert update.spec.profile.short_description == "a page"


def test_the_same_app_again_changes_nothing(server: Plane, loaded: Loaded) -> None:
    flyte.serve(loaded.environment("web"))
    app = running(created(requests(server, APPS + "Create")[0]))
    app.spec.creator.user.id.subject = "alice"
    server.on(APPS + "Create", Refusal("already_exists", status=409))
    server.on(APPS + "Get", app_wire.GetResponse(app=app))
    assert flyte.serve(loaded.environment("web")).status == "ACTIVE"
    assert requests(server, APPS + "Update") == []


def test_an_app_that_does_not_come_up(server: Plane, loaded: Loaded) -> None:
    server.on(APPS + "Create", lambda seen: app_wire.CreateResponse(app=running(created(seen), "PENDING")))
    failed = running(apps.App(), "FAILED", "FLYTE_ENDPOINT environment variable not set")
    server.on(
        APPS + "Watch",
        Stream([app_wire.WatchResponse(update_event=app_wire.UpdateEvent(updated_app=failed))]),
    )
    with pytest.raises(DeploymentError, match="FLYTE_ENDPOINT environment variable not set"):
        flyte.serve(loaded.environment("web"))
    assert flyte.serve(loaded.environment("web"), wait=False).status == "PENDING"
    server.on(APPS + "Watch", Stream([]))
    with pytest.raises(DeploymentError, match="PENDING"):
        flyte.serve(loaded.environment("web"))


def test_serve_is_for_apps(server: Plane, loaded: Loaded) -> None:
    with pytest.raises(DeploymentError, match="no app"):
        flyte.serve(loaded.environment("env"))


async def test_register_a_task_and_what_it_may_call(server: Plane, loaded: Loaded) -> None:
    remote = await _deploy.register(loaded.module.double)
    assert {"jobs.double", "base.ping"} <= set(deployed(server))
    assert (remote.name, remote.project, remote.domain) == ("jobs.double", "flytesnacks", "development")
    assert remote.version
    done = await flyte.deploy.aio(loaded.environment("base"))
    assert [each.name for each in done.tasks] == ["base.ping"]


PLACE = Place("", "p", "d")


def test_names_of_variables_and_of_environments(loaded: Loaded) -> None:
    assert loaded.environment("web") is loaded.environment("web-app") is loaded.module.web
    assert loaded.environment("jobs", kind="task") is loaded.module.env
    assert [each.name for each in loaded.environments(kind="app")] == ["web-app", "tool-app"]
    with pytest.raises(DeclarationError, match=r"absent.*base, jobs, tool-app, web-app"):
        loaded.environment("absent")
    with pytest.raises(DeclarationError, match="app environment"):
        loaded.environment("jobs", kind="app")


def test_plans_that_cannot_be(loaded: Loaded, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="nothing"):
        plan([], place=PLACE)
    with pytest.raises(DeploymentError, match="no tasks"):
        plan([flyte.TaskEnvironment("empty")], place=PLACE)
    with pytest.raises(DeploymentError, match="outside of the code root"):
        plan([loaded.module.env], place=PLACE, root=tmp_path / "elsewhere")
    with pytest.raises(DeploymentError, match="not an environment"):
        plan([object()], place=PLACE)  # type: ignore[list-item]
    twin = flyte.TaskEnvironment("jobs")
    with pytest.raises(DeploymentError, match="Two environments"):
        plan([loaded.module.env, twin], place=PLACE)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("absent.py", None, "not a Python file"),
        ("notes.txt", "", "not a Python file"),
        ("two-words.py", "", "not the name of a module"),
        ("json.py", "", "of Python itself"),
        ("broken_a.py", "1 / 0", "ZeroDivisionError"),
        ("broken_b.py", "import sys; sys.exit(1)", "SystemExit"),
        ("broken_c.py", "def (", "SyntaxError"),
        ("broken_d.py", "import flyte\nflyte.TaskEnvironment('a b')", "broken_d.py: 'a b' cannot"),
        ("httpx.py", "", "belongs to another module"),
    ],
)
def test_files_that_cannot_be_loaded(tmp_path: Path, name: str, code: str | None, words: str) -> None:
    import httpx  # noqa: F401 - so that its name is taken

    if code is not None:
        (tmp_path / name).write_text(code)
    before = list(sys.path)
    with pytest.raises(DeploymentError) as raised:
        load_file(tmp_path / name)
    assert words in str(raised.value)
    sys.path[:] = before
