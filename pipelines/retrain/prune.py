"""`endcap prune`: what retrains left behind goes, by policy; `endcap retrain` ends with the same."""

from typing import Annotated

import typer

from feature_repo.files import reserved
from feature_repo.online.connection import connect
from feature_repo.params import shop
from feature_repo.places import REWRITING
from pipelines.retrain.leftovers import leftovers, lines


def main(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go, with sizes.")] = False,
) -> None:
    """Remove old bundles, MLflow runs, cached files and landed events that no kept release needs."""
    with connect() as redis, reserved(shop().run_dir() / REWRITING, "`endcap prune`"):
        found = list(leftovers(redis, remove=not dry_run))
    for line in lines(found, each=dry_run):
        print(line)
    verb = "would go" if dry_run else "removed"
    print(f"{verb}: {len(found):,} things, {sum(one.bytes for one in found) / 1e6:.1f} MB")
