"""Specifications that the official SDK makes: told apart, and as its runtime sends them for a child.

Inside a task it knows its code bundle by the file that it was given, and leaves out what only a deployment
adds. Both are put back, so that a child is known as the deployed task that it is.
"""

from __future__ import annotations

from flyteidl2.task import task_definition_pb2

PROGRAM = "a0"
BUNDLES = {"--tgz": "code.tar.gz", "--pkl": "code.pkl.gz"}
"""Its options for code bundles, and the names of the files that they are handed over as."""

_SYS_PATH = "_F_SYS_PATH"


def hosts(spec: task_definition_pb2.TaskSpec) -> bool:
    """Whether the task is one of the official SDK."""
    return list(spec.task_template.container.args[:1]) == [PROGRAM]


def settled(
    asked: task_definition_pb2.TaskSpec, parent: task_definition_pb2.TaskSpec
) -> task_definition_pb2.TaskSpec:
    """The specification of a child, with bundle and import path of its parent where it names none of ours."""
    spec = task_definition_pb2.TaskSpec()
    spec.CopyFrom(asked)
    template, above = spec.task_template, parent.task_template
    if not template.metadata.code_bundle_uri.startswith("tower://"):
        template.metadata.code_bundle_uri = above.metadata.code_bundle_uri
        _name_bundle(template.container.args, above.metadata.code_bundle_uri)
    if not any(pair.key == _SYS_PATH for pair in template.container.env):
        for pair in above.container.env:
            if pair.key == _SYS_PATH:
                template.container.env.add(key=_SYS_PATH, value=pair.value)
    return spec


def same(one: task_definition_pb2.TaskSpec, other: task_definition_pb2.TaskSpec) -> bool:
    """Whether two specifications run the same in the same way: words about them and places do not count."""
    return _essence(one) == _essence(other)


def _essence(spec: task_definition_pb2.TaskSpec) -> bytes:
    kept = task_definition_pb2.TaskSpec()
    kept.CopyFrom(spec)
    kept.ClearField("documentation")
    template = kept.task_template
    template.ClearField("id")
    pairs = sorted((pair.key, pair.value) for pair in template.container.env)
    del template.container.env[:]
    for key, value in pairs:
        template.container.env.add(key=key, value=value)
    data: bytes = kept.SerializeToString(deterministic=True)
    return data


def _name_bundle(words: list[str], uri: str) -> None:
    for option in BUNDLES:
        if option in words[:-1]:
            words[list(words).index(option) + 1] = uri
