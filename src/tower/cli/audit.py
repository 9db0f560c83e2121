"""`tower audit`: prove, export and prune the audit chain. The first two also work beside a running server."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from contextlib import closing
from pathlib import Path

import rich_click as click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tower.cli import provenance
from tower.cli.administration import (
    JSON,
    Administration,
    Refused,
    composition_root,
    fail,
    faults,
    runs_over,
    span,
)
from tower.cli.newfile import new_file
from tower.identity.signing import SigningKey

NOT_FOUND = 4
NOT_WHOLE = 6

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def audit() -> None:
    """The audit chain: is it whole, and a copy of it."""


@audit.command("verify")
@click.option("--file", type=_FILE, help="An exported file instead of the database.")
@click.option(
    "--key", type=_FILE, help="The public key (PEM) that must have signed. Default: that of the home."
)
@click.option(
    "--run",
    metavar="[PROJECT/DOMAIN/]NAME",
    help="Also print who asked for this run, through what, why, and what it asked for; all of it signed.",
)
@JSON
@click.pass_obj
@faults
def verify(
    tower: Administration, *, file: Path | None, key: Path | None, run: str | None, output: str
) -> None:
    """Find any record that was edited, deleted, reordered or cut off, and name the first.

    Ends with 6 when the chain does not hold. What no signature covers yet is counted as unsigned; of a run
    that is asked for, every record must be under a signature. A running server signs what there is. With
    --file and --key neither home nor database is needed.
    """
    if file is None and runs_over(tower.home):
        with contextlib.suppress(
            Refused
        ):  # a server of another version: then what it signed by itself counts
            tower.call("POST", "/audit/checkpoint")
    proof, found = composition_root().prove(tower.home, file=file, key=key, run=run)
    unsigned = proof.last - max(proof.signed, proof.first - 1)
    if output == "json":
        broken = proof.broken and {"record": proof.broken.seq, "damage": proof.broken.damage.value}
        document = {
            "whole": broken is None,
            "broken": broken,
            "records": proof.records,
            "first": proof.first,
            "last": proof.last,
            "signed_through": proof.signed,
        }
        print(json.dumps(document if run is None else {**document, "run": found}, indent=2))
    elif proof.broken is None:
        print(
            f"whole: {proof.records} records, {proof.first} to {proof.last}; unsigned at the end: {unsigned}"
        )
        for line in () if found is None else provenance.lines(found):
            print(line)
    if proof.broken is not None:
        fail(f"The audit chain is broken at {proof.broken}.", NOT_WHOLE)
    if run is not None and found is None:
        fail(f"No record says that a run {run} was let in.", NOT_FOUND)
    if found is not None and (problem := provenance.wrong(found)):
        fail(problem, NOT_WHOLE)


@audit.command("export")
@click.option(
    "--to", type=click.Path(path_type=Path, dir_okay=False), help="A new file. Default: the output."
)
@click.pass_obj
@faults
def export(tower: Administration, *, to: Path | None) -> None:
    """Write the whole chain as JSON lines, which `tower audit verify --file` takes."""
    with closing(composition_root().exported(tower.home)) as lines:
        if to is None:
            sys.stdout.writelines(lines)
            return
        with new_file(to) as file:
            file.writelines(lines)
    print(f"written to {to}")


@audit.command("prune")
@click.option(
    "--older-than", required=True, metavar="SPAN", help="An age: 365d. A signed checkpoint that old stays."
)
@click.pass_obj
@faults
def prune(tower: Administration, older_than: str) -> None:
    """Remove old records. The chain stays provable: it goes on from a signed checkpoint."""
    seconds = span(older_than, "--older-than") or 0.0
    done = tower.call("POST", "/audit/prune", {"before": time.time() - seconds})
    print(f"removed {done['records']} records, through {done['through']}")


@audit.command("key")
@click.pass_obj
@faults
def key(tower: Administration) -> None:
    """Print the installation's public key: keep it elsewhere, for `verify --key`.

    It vouches for every key that ever signs a checkpoint, so that it stays the one to keep.
    """
    private = SigningKey.load_or_create(tower.home / "signing.key").key.private_key
    assert isinstance(private, Ed25519PrivateKey)
    print(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(), end="")
