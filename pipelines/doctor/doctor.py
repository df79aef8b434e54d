"""`endcap doctor DATA`: a first look at an export before any stage; it writes only what it is asked for.

Without DATA it is the running deployment that is looked at: pipelines/doctor/deployment.py.
"""

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from feature_repo import params
from feature_repo.clock import EPOCH
from feature_repo.errors import DataError, EndcapError
from feature_repo.offline.duck import connect
from pipelines.doctor.diagnosis import cuts, estimate, findings, refusal, share
from pipelines.doctor.sketch import draw
from pipelines.doctor.survey import Survey, survey
from pipelines.ingest.adapters.adapters import adapter_of
from pipelines.ingest.ingest import IngestParams

WIDTH = 78


def main(
    data: Annotated[str | None, typer.Argument(help="Export: a folder, or a shop of params.yaml.")] = None,
    adapter: Annotated[str | None, typer.Option(help="How to read it; default: guessed.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="Mapping file, for adapter table.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw it here (.png, .svg).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Look at an export (DATA) before any stage, or at the running deployment; 1 if something must be done.

    Of DATA: what is there, what is missing; 1 if it cannot be trained. Without it: versions, clocks, what
    Redis keeps, ages, disks, secrets, ports; each a line with what to do next: `must` is exit code 1, `warn`
    and `note` alone are 0.
    """
    if data is None:
        if adapter or mapping or picture:
            raise typer.BadParameter("--adapter, --mapping and --picture go with DATA")
        from pipelines.doctor import deployment  # the serving path, which an export has no need of

        deployment.report(as_json)
        return
    shop, how = _shop_of(data, adapter, mapping)
    constants = params.load("ingest", IngestParams)
    with (
        TemporaryDirectory(prefix="endcap-doctor-") as spill,
        connect(
            memory_limit=constants.memory_limit, threads=constants.threads, temp_directory=spill
        ) as connection,
    ):
        seen = survey(adapter_of(shop), connection)
    report = report_of(seen, how, constants.max_quarantined_share)
    if picture:
        draw(seen, shop.name, picture)
    print(json.dumps(report, indent=2, default=str) if as_json else as_text(seen, report))
    if not as_json:
        print(f"{picture} shows it" if picture else "`--picture FILE` draws it")
    if report["refused"]:
        raise EndcapError(f"{data}: cannot be trained: {report['refused']}")


def report_of(seen: Survey, how: str, allowed: float) -> dict[str, Any]:
    """Everything that is told, as plain values."""
    refused = refusal(seen)
    minutes, gigabytes = estimate(sum(seen.parts.values()) - seen.parts.get("items", 0), seen.items)
    return {
        "read_as": how,
        "seen": asdict(seen),
        "findings": findings(seen, allowed),
        "cuts": cuts(seen.first, seen.last) if seen.first and seen.last and not refused else {},
        "estimate": {"minutes": minutes, "gigabytes": gigabytes},
        "refused": refused,
    }


def as_text(seen: Survey, report: dict[str, Any]) -> str:
    """Lines of at most 80 columns."""
    lines = [f"read as {report['read_as']}"]
    lines += [f"{part:<12}{rows:>12,} rows" for part, rows in seen.parts.items()]
    lines += [f"  {kind or 'no type':<20}{rows:>12,}" for kind, rows in seen.types.items()]
    if seen.first:
        lines.append(f"from {seen.first:%Y-%m-%d %H:%M:%S} to {seen.last:%Y-%m-%d %H:%M:%S} UTC")
    lines.append(
        f"time: unit {seen.unit or 'finer'}; {share(seen.tied, seen.in_order)} of contacts share an instant"
    )
    lines.append(f"visits: {seen.visits:,}, {share(seen.anonymous, seen.visits)} of them anonymous")
    lines.append(f"shoppers: {seen.shoppers:,}, {share(seen.returning, seen.shoppers)} of them came again")
    lines.append(f"products: {seen.items:,}, {share(seen.untouched, seen.items)} of them never touched")
    lines += [f"- {finding}" for finding in report["findings"]]
    if report["cuts"]:
        lines.append("cuts for params.yaml:")
        lines += [f"    {name}: '{moment}'" for name, moment in report["cuts"].items()]
        minutes, gigabytes = report["estimate"].values()
        lines.append(f"`dvc repro`: about {minutes} minutes and {gigabytes} GB on two cores, an estimate")
        lines.append("can be trained")
    return "\n".join(
        wrapped for line in lines for wrapped in textwrap.wrap(line, WIDTH, subsequent_indent="  ") or [""]
    )


def _shop_of(data: str, adapter: str | None, mapping: Path | None) -> tuple[params.Shop, str]:
    """What to read, and how in words. A folder is taken before a shop of the same name."""
    folder = Path(data).expanduser()
    if not folder.is_dir():
        try:
            shop = params.named_shop(data)
        except params.ParamsError as error:
            step = "name a folder with an export, or a shop of params.yaml"
            raise DataError(data, f"no such folder; {error}", next_step=step) from None
        return shop, f"{shop.adapter}, as shops.{shop.name} says"
    how = "as told"
    if adapter is None:
        adapter, found = ("table", mapping) if mapping else _guessed(folder)
        mapping, how = found, "as guessed from its files"
    told = str(mapping.resolve()) if mapping else None
    return params.Shop(
        folder.resolve().name, adapter, str(folder.resolve()), told, EPOCH, EPOCH, EPOCH
    ), f"{adapter}, {how}"


NAMES = {  # adapter: how a platform's files are called (docs/ingest.md)
    "shopify": ("orders*.csv", "orders*.csv.gz"),
    "woocommerce": ("orders*.jsonl", "orders*.jsonl.gz", "orders*.ndjson", "orders*.json"),
    "segment": ("product_viewed*", "product_added*", "order_completed*"),
    "ga4": ("events*.json*", "events*.parquet", "events*/*"),
}


def _guessed(folder: Path) -> tuple[str, Path | None]:
    """Adapter and mapping file. Raises DataError where nothing in the folder says it."""
    if (events := folder / "events.parquet").is_file():
        try:
            names = pq.read_schema(events).names
        except (pa.ArrowException, OSError) as error:
            raise DataError(events, f"not a parquet file: {error}", next_step="export it again") from error
        if "event_ts" in names and "type" in names:
            return "simulated", None
        if {"ts", "hit", "event"} <= set(names):
            return "ga360", None
    if len(found := sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")))) == 1:
        return "table", found[0]
    for adapter, patterns in NAMES.items():
        if any(any(folder.glob(pattern)) for pattern in patterns):
            return adapter, None
    step = "write a mapping file (docs/ingest.md) and name it with --mapping, or name --adapter"
    raise DataError(folder, "no adapter fits what lies there", next_step=step)
