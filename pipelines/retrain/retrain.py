"""`endcap retrain`: new data, the stages, the gate, a challenger, its canary; for cron, unattended.

    land       events of the running shop -> data/logs/events
    cuts       of the shop's time move on by the whole days that have come since the export
    stages     `dvc repro bundle`: what changed runs again, the gate included
    shadow     the candidate becomes the challenger, and is computed beside answers until it can be judged
    release    its canary begins, also where too few answers came meanwhile; the guard of `endcap up` decides
    prune      what no kept release needs goes (leftovers.py)

Each step finds what the one before it left, so a run that was killed anywhere is finished by the next. At
most one runs at a time. Whatever fails, the champion serves on. How it went is in run/SHOP/retrain.json; that
one is at work stands there from its beginning, so that whoever looks knows of one that was killed.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from redis import Redis

from feature_repo.clock import DAY_US, instant, micros
from feature_repo.errors import EndcapError
from feature_repo.eventlog.keys import StreamParams
from feature_repo.features.catalogue import said_at
from feature_repo.files import read_json, reserved, write_json
from feature_repo.offline import event_log
from feature_repo.online.connection import connect
from feature_repo.params import load, root, shop
from feature_repo.places import CANDIDATE, EVENT_LOG, RAW, RETRAINED, REWRITING, VERDICT, at
from monitoring.experiment.guard import RolloutParams
from monitoring.shadow.pairing import cleared, objection
from pipelines.compare.shadow import rehearse
from pipelines.gates.bar import GateError, Verdict
from pipelines.ingest.shop import advance
from pipelines.local.story import StepError, reproduce
from pipelines.release import rollout as canary
from pipelines.release.aliases import act_of, read_manifest
from pipelines.release.promote import promote
from pipelines.release.registry import Registry
from pipelines.retrain.land import land
from pipelines.retrain.leftovers import leftovers, lines
from serving.beside.trial import ShadowParams
from serving.release import state as rollout

ON_TRIAL, NOTHING_NEW = "on trial", "nothing new"
REFUSED, UNSOUND, FAILED = "refused by the gate", "refused in the shadow", "failed"
AT_WORK = "at work"
GATE_SAID_NO = "failed to reproduce 'gate': failed to run"  # of DVC; a busy one says something else


class RetrainError(EndcapError):
    """Nothing was begun: another one runs, or a canary is under way."""


@dataclass(frozen=True)
class Summary:
    """How a run went; written whatever happened."""

    outcome: str  # one of those above
    told: str  # what happened and what to do next
    champion: str  # that serves, digest
    candidate: str = ""
    events: int = 0  # live ones, landed by this run
    moved_days: int = 0  # of the cuts since the export
    ndcg_at_12: tuple[float | None, float | None] = (
        None,
        None,
    )  # champion's, candidate's, each on its own test span
    removed: str = ""  # of what earlier ones left
    seconds: float = 0.0

    def text(self) -> str:
        """One line."""
        return f"retrain: {self.outcome} after {self.seconds:.0f} s; {self.told}"

    def exit_code(self) -> int:
        return int(self.outcome in (REFUSED, UNSOUND, FAILED))


def main(
    why: Annotated[str, typer.Option(help="For the audit log.")] = "endcap retrain",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> int:
    """New events to a challenger on trial: land, move the cuts, run the stages, gate, start the canary."""
    began = time.monotonic()
    with connect() as redis, reserved(shop().run_dir() / REWRITING, "`endcap retrain`"):
        summary = replace(retrain(redis, why), removed=_tidied(redis))
        written = _write(replace(summary, seconds=round(time.monotonic() - began, 1)))
    print(written.decode() if as_json else summary.text())
    return summary.exit_code()


def _write(summary: Summary) -> bytes:
    return write_json(shop().run_dir() / RETRAINED, asdict(summary))


def retrain(redis: Redis, why: str) -> Summary:
    """Raises RetrainError before anything is begun; a step that fails later is an outcome."""
    state = rollout.present(redis)
    champion = Summary(FAILED, "", state.champion.digest)
    if state.challenger:
        return _under_way(state, champion)
    _write(replace(champion, outcome=AT_WORK, told=f"since {instant(time.time_ns() // 1000):%F %T} UTC"))
    try:
        return _run(redis, why, state, champion)
    except BaseException as error:
        _write(replace(champion, told=f"{error or type(error).__name__}. The champion serves on"))
        raise


def _run(redis: Redis, why: str, state: rollout.RolloutState, champion: Summary) -> Summary:
    landed = land(redis, at(EVENT_LOG), load("stream", StreamParams))
    told = replace(champion, events=landed.rows, moved_days=advance(new_days()).moved_days)
    log = shop().run_dir() / "logs" / "retrain-dvc.log"
    try:
        reproduce("bundle", log.relative_to(root()))
    except StepError as error:
        return _stopped(told, error, log)
    manifest = read_manifest(at(CANDIDATE))
    told = replace(
        told, candidate=manifest["digest"], ndcg_at_12=(_ndcg(state.champion.manifest()), _ndcg(manifest))
    )
    if manifest["digest"] == state.champion.digest:
        return replace(told, outcome=NOTHING_NEW, told="the candidate is the champion itself")
    try:
        gate = read_json(at(VERDICT), "run `dvc repro gate`")
        release = promote(at(CANDIDATE), redis, Registry(), act_of(why), latest_gate=gate).release
        act, shadow = act_of(why), load("shadow", ShadowParams)
        if shadow.required:
            found = rehearse(redis, release, shadow, act)
            if found.failed or found.empty:
                against = objection(found, shadow)
                return replace(told, outcome=UNSOUND, told=f"in the shadow {against}. The champion serves on")
            act = replace(act, numbers=cleared(redis, release, shadow, forced="nobody is there to wait"))
        begun = canary.begin(redis, load("rollout", RolloutParams), act)
    except GateError as error:
        return replace(told, outcome=REFUSED, told=f"{error}. The champion serves on")
    except EndcapError as error:
        return replace(told, told=f"{error}. The champion serves on")
    line = f"{manifest['digest']} gets {begun.percent} % of the shoppers; next: `endcap rollout status`"
    return replace(told, outcome=ON_TRIAL, told=line)


def _tidied(redis: Redis) -> str:
    """Whatever became of the run; what cannot be removed now, the next one removes."""
    try:
        return "; ".join(lines(leftovers(redis, remove=True), each=False))
    except EndcapError as error:
        return str(error)


def _ndcg(manifest: Mapping[str, Any] | None) -> float | None:
    models = (manifest or {}).get("metrics", {}).get("models", {})
    return models["endcap"]["ndcg_at_12"] if "endcap" in models else None


def new_days() -> int:
    """Whole days between the export's newest event and the newest that was landed; 0 where none was."""
    if not (files := event_log.files(at(EVENT_LOG))):
        return 0
    newest = max(pc.max(pq.read_table(file, columns=["event_ts"])["event_ts"]).as_py() for file in files)
    return max(0, (micros(newest) - micros(said_at(at(RAW)))) // DAY_US)


def _under_way(state: rollout.RolloutState, told: Summary) -> Summary:
    """A canary of our own candidate: a run that was killed after it had begun. Another's is in the way."""
    assert state.challenger is not None
    digest = state.challenger.digest
    if at(CANDIDATE).exists() and read_manifest(at(CANDIDATE))["digest"] == digest:
        line = f"{digest} gets {state.percent} % of the shoppers; next: `endcap rollout status`"
        return replace(told, outcome=ON_TRIAL, told=line, candidate=digest)
    raise RetrainError(
        f"challenger: {digest} is on trial at {state.percent} %; retrain when it is decided, "
        "or end it with `endcap rollout stop`"
    )


def _stopped(told: Summary, error: StepError, log: Path) -> Summary:
    """The gate's no is an outcome of its own; both leave the champion serving."""
    if GATE_SAID_NO in log.read_text(errors="replace"):
        found = read_json(at(VERDICT), "run `dvc repro gate`")
        line = f"{Verdict.from_json(found).shortfall()}. The champion serves on"
        return replace(told, outcome=REFUSED, told=line)
    return replace(told, told=f"{error}. The champion serves on; run it again when it is mended")
