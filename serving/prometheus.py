"""Prometheus metrics of the service; with several workers the sum over them (PROMETHEUS_MULTIPROC_DIR)."""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from serving.types import Answer

LATENCY_BUCKETS = tuple(ms / 1000 for ms in (0.5, 1, 1.5, 2, 3, 4, 6, 8, 10, 15, 25, 50, 100, 500, 1000))

ANSWERS = Counter("endcap_answers_total", "Lists answered", ["surface", "arm", "served_from"])
ANSWER_SECONDS = Histogram(
    "endcap_answer_seconds", "Body parsed to answer made", ["arm"], buckets=LATENCY_BUCKETS
)
STAGE_SECONDS = Histogram(
    "endcap_stage_seconds",
    "One stage of an answer: features, filter, retrieve, rank, diversify",
    ["stage"],
    buckets=(0.0001, 0.00015, 0.0002, 0.0003, 0.0004, 0.0006, 0.0008, *LATENCY_BUCKETS[1:]),
)
DEGRADED = Counter("endcap_degraded_total", "Answers made with less than everything", ["reason"])
REQUEST_AGE = Histogram(
    "endcap_request_age_seconds",
    "From a request's last byte to the choice of its rung",
    buckets=LATENCY_BUCKETS,
)
RUNG_SECONDS = Gauge(
    "endcap_rung_seconds",
    "What a list of a rung costs, running mean",
    ["rung"],
    multiprocess_mode="mostrecent",
)
RAILS_REFUSED = Counter(
    "endcap_rails_refused_total", "Rails that were asked for and not served", ["of", "why"]
)
RAILS_AGE = Gauge(
    "endcap_rails_age_seconds", "Age of the rails of cohorts and categories", multiprocess_mode="mostrecent"
)
EMPTY_SLOTS = Counter("endcap_empty_slots_total", "Slots asked for and not filled", ["surface"])
REFUSED = Counter("endcap_refused_total", "Requests refused", ["route", "status"])
LIMITED = Counter("endcap_limited_total", "Answered 429", ["what", "bucket"])
RATES_LOCAL = Counter("endcap_rates_local_total", "Requests whose rate a worker counted alone, without Redis")
UNCOUNTED = Counter("endcap_events_uncounted_total", "Events accepted that count for nothing", ["reason"])
EVENTS = Counter("endcap_events_total", "Events posted", ["outcome"])
COMPAT = Counter("endcap_compat_events_total", "Events of other systems", ["system", "outcome"])
ITEM_CHANGES = Counter("endcap_item_changes_total", "Changes of items posted", ["outcome"])
NOT_STORED = Counter("endcap_events_not_stored_total", "Posts of events or items answered 503", ["cause"])
_of_group = partial(Gauge, labelnames=["group"], multiprocess_mode="mostrecent")
BEHIND_EVENTS = _of_group(
    "endcap_stream_behind_events", "Entries of the log that are not in the group's rows"
)
BEHIND_SECONDS = _of_group("endcap_stream_behind_seconds", "Seconds since the oldest of them arrived")
LOGGED = Counter("endcap_logged_total", "Entries of the log of what was shown", ["stream", "outcome"])
BESIDE = Counter("endcap_beside_total", "Lists of what is tried out", ["stream", "outcome"])
ITEM_ROWS = Counter("endcap_item_rows_refreshed_total", "Rows of the item matrix read again")
NEWBORNS = Gauge(
    "endcap_newborns",
    "Items that came after a release was fitted",
    multiprocess_mode="livemax",
)
NEWBORNS_LEFT_OUT = Gauge(
    "endcap_newborns_left_out", "Those beyond newborns.most, which have none", multiprocess_mode="livemax"
)
FEATURE_AGE = Histogram(
    "endcap_feature_age_seconds",
    "Age of the newest stored row of the shopper, else of any item",
    buckets=(0.05, 0.1, 0.5, 1, 5, 30, 60, 300, 1800, 86400, 604800),
)
# Of live workers only: the value of a dead one goes with it.
RELEASE_VERSION = Gauge(
    "endcap_rollout_version", "Version of the rollout state that is served", multiprocess_mode="livemin"
)
# Of the workers that live: what a dead one said last is nobody's age.
_of_thing = partial(Gauge, labelnames=["thing"], multiprocess_mode="livemax")
AGE_SECONDS = _of_thing(
    "endcap_age_seconds", "Age of each thing that answers rest on (serving/live/pulse.py)"
)
AGE_LIMIT = _of_thing("endcap_age_limit_seconds", "Older than this, /readyz answers 503")
DISK_FREE = Gauge(
    "endcap_redis_disk_free_bytes", "Left where the embedded Redis writes", multiprocess_mode="livemin"
)
STAND_IN = Gauge(
    "endcap_release_stand_in",
    "1 while a worker serves another release than the champion that Redis names",
    multiprocess_mode="livemax",
)
GUARD_AGE = Gauge(
    "endcap_guard_age_seconds", "Since a canary's guard looked; NaN: never", multiprocess_mode="mostrecent"
)
GUARD_ALARM = Gauge(
    "endcap_guard_alarm", "1 while the canary's clicks may not decide", multiprocess_mode="mostrecent"
)
ALARM = Gauge(
    "endcap_alarm",
    "1 while the console's lookout holds that a person must hear of it",
    ["kind"],
    multiprocess_mode="mostrecent",
)
LOOKOUT = Gauge("endcap_lookout", "1 while a console looks for such", multiprocess_mode="mostrecent")
SWAPS = Counter("endcap_release_swaps_total", "Changes of the release pointer", ["outcome"])
RANKERS = Counter(
    "endcap_rankers_loaded_total",
    "Rankers loaded; StockForest: its compiled trees could not be used",
    ["kind"],
)


def exposition() -> bytes:
    """The text format, over all workers where there are several."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    _forget_the_dead(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)


def _forget_the_dead(folder: Path) -> None:
    """Drop what killed workers left in the gauges of live ones; their counts stay, as sums must not fall."""
    for pid in {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*_*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with suppress(FileNotFoundError):  # another worker does the same at this moment
                mark_process_dead(pid, str(folder))
        except PermissionError:
            pass  # somebody else's process has that number now


def count(answer: Answer, took: float, stages: Mapping[str, float], missing: int) -> None:
    """One list: seconds in all and by stage, and slots that stayed empty."""
    ANSWERS.labels(answer.surface, answer.arm, answer.served_from).inc()
    ANSWER_SECONDS.labels(answer.arm).observe(took)
    for stage, seconds in stages.items():
        STAGE_SECONDS.labels(stage).observe(seconds)
    if answer.degraded:
        DEGRADED.labels(answer.degraded).inc()
    if answer.feature_age_ms is not None:
        FEATURE_AGE.observe(answer.feature_age_ms / 1000)
    if missing > 0:
        EMPTY_SLOTS.labels(answer.surface).inc(missing)
