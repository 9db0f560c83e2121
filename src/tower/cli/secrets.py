"""`tower secrets`: the key that secrets are sealed with. Secrets themselves: `flyte create secret`."""

from __future__ import annotations

import rich_click as click

from tower.cli.administration import Administration, faults


@click.group()
def secrets() -> None:
    """The key outside of the database that secrets are sealed with."""


@secrets.command("rotate-key")
@click.pass_obj
@faults
def rotate_key(tower: Administration) -> None:
    """Seal every secret anew with a fresh key, and forget the former one."""
    print(f"sealing with {tower.call('POST', '/sealing-keys/rotate')['key_id']}")
