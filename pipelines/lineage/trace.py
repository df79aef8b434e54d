"""`endcap trace`: from an answer to arm, release, runs and data; from a release to its answers."""

import re
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

import orjson
import typer
from redis import Redis

from feature_repo.clock import instant
from feature_repo.errors import DataError, shorten
from feature_repo.online.connection import connect
from pipelines.lineage import answers
from pipelines.lineage.ancestry import ancestry
from serving.release import state as control

WIDTH = 80
REQUEST_ID, DIGEST = re.compile("[A-Za-z0-9_-]{32,256}"), re.compile("[0-9a-f]{4,16}")
SAID = {"request_id", "ts", "surface", "arm", "version", "bundle", "user_id", "session_id", "unit", "items"}


def main(
    request_id: Annotated[str | None, typer.Argument(help="of an answer, as it was given with it.")] = None,
    bundle: Annotated[str | None, typer.Option(help="a release's digest, or how it begins.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Where an answer came from: arm, release, MLflow runs, data; --bundle: which answers a release gave."""
    if (request_id is None) == (bundle is None):
        raise typer.BadParameter("give a request_id, or --bundle DIGEST")
    redis = connect()
    told = trace(redis, request_id) if request_id is not None else released(redis, bundle or "")
    print(orjson.dumps(told).decode() if json_output else "\n".join(lines(told)))
    return 0


def trace(redis: Redis, request_id: str) -> dict[str, Any]:
    """The answer, the change of the rollout under which it was given, and its release.

    Raises DataError, which says what is kept for how long, for an id that is not on record.
    """
    if not REQUEST_ID.fullmatch(request_id):
        step = "give the 32 to 256 letters, digits, - and _ that stand in the answer"
        raise DataError("request_id", f"{shorten(request_id)} is none", next_step=step)
    found = answers.find(redis, request_id)
    if found is None:
        step = "ask for a newer one; `endcap feedback` keeps what the log holds now"
        raise DataError(request_id, f"no answer on record: {answers.kept(redis)}", next_step=step)
    record, where = found
    version = record.get("version")
    audit = control.read_audit(redis, control.AUDIT_KEPT) if version is not None else []
    since = [_change(entry) for entry in audit if entry["version"] == version][:1]
    told: dict[str, Any] = {"answer": record, "on_record_in": where}
    return told | {"change": since[0] if since else None, "release": ancestry(record["bundle"]).told()}


def released(redis: Redis, digest: str) -> dict[str, Any]:
    """The release, and what it gave, by arm and surface. Raises DataError where neither is on record."""
    if not DIGEST.fullmatch(digest):
        step = "give 4 to 16 hex digits, as `endcap rollout history` shows them"
        raise DataError("--bundle", f"{shorten(digest)} is no digest", next_step=step)
    given = answers.given(redis, digest)
    digests = {one.bundle for found in given.values() for one in found} or {digest}
    releases = [ancestry(one) for one in sorted(digests)]
    if not given and not any(one.known for one in releases):
        step = "`endcap rollout history` lists the releases"
        raise DataError(digest, f"no release, and no answers: {answers.kept(redis)}", next_step=step)
    told = {where: [asdict(one) for one in found] for where, found in given.items()}
    return {"releases": [one.told() for one in releases], "answers": told, "kept": answers.kept(redis)}


def lines(told: dict[str, Any]) -> list[str]:
    """Of `trace` or `released`, WIDTH columns wide; an id is never cut."""
    if "releases" in told:
        return [line for release in told["releases"] for line in _release(release)] + _given(told)
    answer = told["answer"]
    who = [f"{name} {answer[name]}" for name in ("user_id", "session_id") if answer.get(name)]
    given = [f"{name} {value}" for name, value in sorted(answer.items()) if name not in SAID]
    found = [("answer", answer["request_id"]), ("", f"{answer['surface']}, {_when(answer['ts'])}")]
    found += [("shopper", ", ".join(who) or "nobody named"), ("on record", told["on_record_in"])]
    found += [("items", ", ".join(answer["items"]) or "not here: the log of samples holds candidates")]
    found += [("", ", ".join(given))] if given else []
    version = answer.get("version")
    found += [("arm", f"{answer['arm']}, version {version} of the rollout" if version else answer["arm"])]
    if change := told["change"]:
        found += [("", f"{change['what']} by {change['who']}, {_when(change['at_us'])}: {change['why']}")]
    return [line for one in found for line in _line(*one)] + _release(told["release"])


def _release(told: dict[str, Any]) -> list[str]:
    span, fits = told.get("data_span", {}), told.get("fits", [])
    found = [("bundle", told["bundle"]), ("", told["folder"])]
    if "ndcg_at_12" in told:
        found += [("", f"NDCG@12 {float(told['ndcg_at_12']):.3f}, {told.get('evaluated', '')}".rstrip(", "))]
    found += [("serves", told["serves"])] if "serves" in told else []
    found += [("data", f"{span.get('from', 'the beginning')} until {span['until']}")] if span else []
    inputs = {f"{name} {md5}" for fit in fits for name, md5 in fit["inputs"].items()}
    found += [("", told_input) for told_input in sorted(inputs)]
    if "feature_service" in told:
        schema = told.get("feature_schema", "unknown")
        found += [("features", f"service {told['feature_service']}, schema {schema}")]
    found += [("code", f"git {told['git']}")] if "git" in told else []
    if "mlflow_version" in told:
        found += [("MLflow", f"version {told['mlflow_version']} of endcap, evaluated by run")]
        found += [("", told.get("mlflow_run", "unknown: of another store"))]
    for fit in fits:
        service = fit.get("feature_service", "unknown")
        found += [("", f"{fit['model']}, run {fit['run']}")]
        found += [("", f"  dvc.lock {fit.get('dvc.lock', 'unknown')}, service {service}")]
    found += [("trouble", told["trouble"])] if "trouble" in told else []
    return [line for one in found for line in _line(*one)]


def _given(told: dict[str, Any]) -> list[str]:
    found = []
    for where, rows in told["answers"].items():
        found += [("answers", where)]
        for row in rows:
            found += [("", f"{row['answers']:,} of {row['arm']} on {row['surface']}")]
            found += [("", f"{_when(row['first_us'])} to {_when(row['last_us'])}, such as")]
            found += [("", request_id) for request_id in row["request_ids"]]
    found += [] if told["answers"] else [("answers", "none on record")]
    return [line for one in [*found, ("kept", told["kept"])] for line in _line(*one)]


def _line(name: str, text: str) -> Iterable[str]:
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return textwrap.wrap(f"{name:<11}{plain}", WIDTH, subsequent_indent=" " * 11, break_long_words=False)


def _change(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("what", "who", "why", "at_us", "version")}


def _when(us: int) -> str:
    return f"{instant(us):%Y-%m-%d %H:%M:%S} UTC"
