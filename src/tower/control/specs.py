"""What a task may declare: the checks on a specification from a client, for deployments and one-off runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from flyteidl2.core import security_pb2
from flyteidl2.task import task_definition_pb2

from tower.control import officialimages, officialspecs
from tower.control.interface import Interface
from tower.errors import Exhausted, Invalid, Unsupported
from tower.settings import DOMAINS, Settings

MAX_SPEC = 1024 * 1024
MAX_ENV = 256
MAX_RETRIES = 100
MAX_SHORT_NAME = 63
MAX_SECRETS = 32
BUNDLES = "tower://bundles/"

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.<>-]{0,254}")
VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
PROJECT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}")


def scope(project: str, domain: str) -> tuple[str, str]:
    """A project and a domain that can exist. Raises Invalid."""
    if not PROJECT.fullmatch(project):
        raise Invalid("The project is missing or no name that a project can have.")
    if domain not in DOMAINS:
        raise Invalid("There is no such domain.", hint=f"The domains are {', '.join(DOMAINS)}.")
    return project, domain


def name(text: str) -> str:
    """The name of a task. Raises Invalid."""
    if not NAME.fullmatch(text):
        raise Invalid(
            "The name of a task is missing or not one that a task can have.",
            hint="It reads <environment>.<function>, at most 255 letters, digits and '_.-'.",
        )
    return text


def version(text: str) -> str:
    """A version. Raises Invalid."""
    if not VERSION.fullmatch(text):
        raise Invalid("The version is missing or holds other characters than letters, digits and '_.+-'.")
    return text


def check(
    spec: task_definition_pb2.TaskSpec, *, project: str, domain: str, settings: Settings
) -> task_definition_pb2.TaskSpec:
    """A copy of the specification after all checks. Raises Invalid, Unsupported or Exhausted."""
    if spec.ByteSize() > MAX_SPEC:
        raise Exhausted(f"The specification of the task is larger than {MAX_SPEC} bytes.")
    template = spec.task_template
    if template.WhichOneof("target") != "container":
        raise Unsupported("A task is one container here.", hint="Set task_template.container.")
    check_identity(template.security_context)
    check_secrets(template.security_context.secrets, settings=settings)
    check_env(((pair.key, pair.value) for pair in template.container.env), settings=settings)
    if template.metadata.retries.retries > MAX_RETRIES:
        raise Invalid(f"A task is tried again at most {MAX_RETRIES} times.")
    if len(spec.short_name) > MAX_SHORT_NAME or len(spec.environment.name) > MAX_SHORT_NAME:
        raise Invalid(f"Short names and names of environments have at most {MAX_SHORT_NAME} characters.")
    bundle = template.metadata.code_bundle_uri
    if bundle:
        bundle_key(bundle, project=project, domain=domain)
    if officialspecs.hosts(spec):
        officialimages.environment(template.container.image, sdk=template.metadata.runtime.version)
    Interface(spec)
    kept = task_definition_pb2.TaskSpec()
    kept.CopyFrom(spec)
    return kept


def bundle_key(uri: str, *, project: str, domain: str) -> str:
    """The blob key of a code bundle that was uploaded for this very project and domain. Raises Invalid."""
    parts = uri.removeprefix(BUNDLES).split("/")
    if not uri.startswith(BUNDLES) or len(parts) != 4 or not all(parts):
        raise Invalid("The code bundle is not one that was uploaded here.", hint="Upload it, then deploy.")
    if (parts[0], parts[1]) != (project, domain):
        raise Invalid("The code bundle was uploaded for another project or domain.")
    return "bundles/" + "/".join(parts)


def check_env(pairs: Iterable[tuple[str, str]], *, settings: Settings) -> None:
    """Raise Invalid for an environment that tries to be Tower's own (T9)."""
    for count, (key, value) in enumerate(pairs, start=1):
        if count > MAX_ENV:
            raise Exhausted(f"There may be at most {MAX_ENV} environment variables.")
        if not VARIABLE.fullmatch(key) or "\0" in value:
            raise Invalid(f"{key[:100]!r} cannot be an environment variable.")
        if key in settings.reserved_env:
            raise Invalid(f"The environment variable {key} is set by Tower itself.", hint="Leave it out.")


def check_identity(context: security_pb2.SecurityContext) -> None:
    """Raise Unsupported for another identity than the caller's (T34)."""
    if context.run_as.ByteSize():
        raise Unsupported("A task runs as the person who asked for it.", hint="Leave run_as out.")
    if context.tokens:
        raise Unsupported("Tokens are not offered by this Tower.", hint="flyte.identity_token() makes one.")


def check_secrets(declared: Sequence[security_pb2.Secret], *, settings: Settings) -> None:
    """Raise Invalid for secrets that cannot be given: bad names, or two for one variable."""
    if len(declared) > MAX_SECRETS:
        raise Exhausted(f"A task or an app declares at most {MAX_SECRETS} secrets.")
    files: set[str] = set()
    variables: set[str] = set()
    for secret in declared:
        if secret.group or secret.group_version:
            raise Unsupported("Secrets have no groups here.", hint="Leave group out.")
        if not SECRET.fullmatch(secret.key):
            raise Invalid(f"{secret.key[:100]!r} cannot be the name of a secret.")
        in_file = secret.mount_requirement == security_pb2.Secret.MountType.FILE
        if (in_file and secret.key in files) or secret.env_var in variables:
            raise Invalid(f"The secret {secret.key} is declared for a place that another one has.")
        if in_file:
            files.add(secret.key)
        elif not secret.env_var:
            raise Invalid(f"The secret {secret.key} is declared for no variable and no file.")
        if secret.env_var:
            variables.add(secret.env_var)
            check_env([(secret.env_var, "")], settings=settings)
