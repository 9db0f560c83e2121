"""`tower doctor`: what is wrong with this Tower, on its machine and through its address, and what to do."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import rich_click as click

from tower.cli.administration import JSON, Administration, composition_root, faults, runs_over


@click.command()
@click.option("--endpoint", metavar="URL", help="Also look at this Tower through its address.")
@click.option("--ca-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="PEM to trust.")
@click.option("--with-key", is_flag=True, help="Try a key at --endpoint: asked for, or on standard input.")
@click.option("--app", metavar="URL", help="Also look whether this app lets strangers in.")
@click.option(
    "--full", is_flag=True, help="Prove every record of the audit, not only those since the last signature."
)
@JSON
@click.pass_obj
@faults
def doctor(
    tower: Administration,
    *,
    endpoint: str | None,
    ca_file: Path | None,
    with_key: bool,
    app: str | None,
    full: bool,
    output: str,
) -> None:
    """Check this Tower and say what to do. Changes nothing. Ends with status 1 when a check fails."""
    if with_key and endpoint is None:
        raise click.UsageError("--with-key goes with --endpoint.")
    for url in (endpoint, app):
        if url is not None and (urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname):
            raise click.UsageError(f"{url} is no URL. Write https://HOST[:PORT].")
    composition_root()
    from tower.main import checkup
    from tower.main.outside import Outside

    findings = [*checkup.home(tower.home, full=full), checkup.server(running=runs_over(tower.home))]
    outside = Outside(ca_file)
    if endpoint is not None:
        findings += outside.endpoint(endpoint.rstrip("/"), _key() if with_key else None)
    if app is not None:
        findings.append(outside.app(app))
    if output == "json":
        print(json.dumps([asdict(each) for each in findings], indent=2))
    else:
        for each in findings:
            print(f"{each.status:4} {each.name}: {each.told}" + (f"; {each.remedy}" if each.remedy else ""))
    if any(each.status == checkup.FAIL for each in findings):
        raise SystemExit(1)


def _key() -> str:
    text = str(click.prompt("Key", hide_input=True, err=True)) if sys.stdin.isatty() else sys.stdin.readline()
    if not text.strip():
        raise click.UsageError("There is no key on standard input.")
    return text.strip()
