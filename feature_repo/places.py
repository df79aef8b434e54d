"""The map of data/ and run/: every path that more than one module names, relative to the project's folder.

data/ is made by the stages and travels with DVC; run/ is the live state of this machine.
"""

from pathlib import Path

import pyarrow.parquet as pq

from feature_repo.errors import DataError
from feature_repo.params import root

DATA, RUN = Path("data"), Path("run")

RAW = DATA / "raw"
EVENTS, IMPRESSIONS, ITEMS = (RAW / f"{name}.parquet" for name in ("events", "impressions", "items"))

FEATURES = DATA / "features"
TEXT = FEATURES / "text.npy"
RANKER_TRAINING = FEATURES / "ranker_training.parquet"

MODELS = DATA / "models"  # one folder per fit, in it one per model
ENCODER = MODELS / "text"  # what made TEXT, and makes the text vector of an item that comes later
RANKER = MODELS / "ranker"
NO_TREES = "no trees: "  # begins a TREES without any, and says why: the blend's order serves
TREES = RANKER / "ranker.txt"
TRIAL = (
    RANKER / "trial.txt"
)  # the same before validation was added to training: what the order is chosen with
SUFFIXES = {"lightgbm": ".txt", "xgboost": ".json", "mlp": ".onnx"}  # of both, by ranker.kind
BLEND = MODELS / "blend" / "blend.json"
ORDER = MODELS / "order" / "order.json"

BUNDLES = DATA / "bundles"  # one folder per digest
CANDIDATE = BUNDLES / "candidate"

REPORTS = DATA / "reports"
BLEND_PICTURE, ORDER_PICTURE = REPORTS / "blend.png", REPORTS / "order.png"
VARIETY_PICTURE, CHANCES_PICTURE = REPORTS / "variety.png", REPORTS / "chances.png"
MARGIN, MARGIN_PICTURE = REPORTS / "margin.json", REPORTS / "margin.png"
EVALUATION = REPORTS / "evaluate.json"
HEADLINE, PASSED = REPORTS / "headline.json", REPORTS / "passed.json"  # few and flat, in git: `dvc metrics`
COMPARISON = REPORTS / "compare.json"
RESULTS = REPORTS / "results.parquet"  # of the evaluation, query by query
SCORES = REPORTS / "scores.parquet"  # the same for the gate, without ids; a bundle takes it along
LEAKAGE = REPORTS / "leakage.json"
VERDICT, VERDICT_PAGE = REPORTS / "gate.json", REPORTS / "gate.html"
ADMISSION, ADMISSION_PAGE = REPORTS / "admission.json", REPORTS / "admission.html"  # of the last promotion
REFERENCE = REPORTS / "reference.parquet"  # what live answers are compared with, part of a bundle
REPLAY, PARITY = REPORTS / "replay.json", REPORTS / "parity.json"  # of the running shop, of one of its own
DRIFT = REPORTS / "drift.json"
SHADOW = REPORTS / "shadow.json"  # of the release that was computed beside live answers last
UNSEEN, UNSEEN_PICTURE, UNSEEN_PAGE = (REPORTS / f"unseen.{kind}" for kind in ("json", "png", "html"))

EMAIL = DATA / "email"  # a file per run of `endcap email`
FEEDBACK = DATA / "feedback"  # what became of what was shown
PROPENSITIES = FEEDBACK / "off_policy.parquet"  # places filled by chance: pipelines/protocol/offpolicy.py
LOGS = DATA / "logs"  # of the active shop, as all of data/; those of another lie in its run/<shop>/data-logs
SERVED_LOG = LOGS / "served"  # the sampled answers that `endcap served` keeps; empty in a new shop
EVENT_LOG = LOGS / "events"  # events of the running shop, written down by `endcap land`
ITEM_LOG = LOGS / "items"  # what was said of items live; empty in a new shop
RETRAINED = "retrain.json"  # in run/<shop>: how the last `endcap retrain` went, or that one began
REWRITING = "rewriting.lock"  # in run/<shop>: held by whoever rewrites data/, models and releases
CACHE = RUN / "cache"
CHALLENGERS = RUN / "challengers"  # releases that the demo makes


def at(place: Path) -> Path:
    """The place in the active project folder, absolute."""
    return root().resolve() / place


def fit_dir(fit: str) -> Path:
    """data/models/<fit>, where every retrieval artefact of one fit lies."""
    return at(MODELS / fit)


def feature_file(view: str) -> Path:
    """data/features/<view>.parquet, where the offline rows of a view lie."""
    return at(FEATURES / f"{view}.parquet")


def existing(place: Path, job: str, *columns: str) -> Path:
    """`at(place)`. Raises DataError, which names the job that makes it, when it is not there, or a parquet
    file that was cut short or lacks one of `columns`.

    >>> existing(Path("data/raw/none.parquet"), "ingest")                      # doctest: +SKIP
    DataError: data/raw/none.parquet: is missing. Next: run `endcap ingest`.
    """
    path = at(place)
    home, step = root().resolve(), f"run `endcap {job}`"
    told = path.relative_to(home) if path.is_relative_to(home) else path
    if not path.exists():
        raise DataError(told, "is missing", next_step=step)
    if path.suffix == ".parquet" and path.is_file():
        if not _ends_as_parquet(path):
            raise DataError(told, "is truncated or no parquet file", next_step=step)
        if columns and (missing := set(columns) - set(pq.read_schema(path).names)):
            raise DataError(told, f"has no column '{min(missing)}'; another version wrote it", next_step=step)
    return path


def ranker_file(place: Path) -> Path:
    """TREES or TRIAL as `endcap ranker` left it, with the suffix of its kind; as existing()."""
    kinds = (place.with_suffix(suffix) for suffix in SUFFIXES.values())
    return existing(next((kind for kind in kinds if at(kind).exists()), place), "ranker")


def _ends_as_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        return file.read() == b"PAR1"
