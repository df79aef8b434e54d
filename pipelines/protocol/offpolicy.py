"""What a candidate's CTR would have been, from what another policy showed with known chances.

A row of the log is one place that was filled by chance: `action`, the item shown; `propensity`, the chance
that the logging policy had to show it there; `reward`, 1 for a click; `candidate`, the chance that the
candidate would have shown it there; `unit`, the visit, whose rows depend on each other. With w = candidate /
propensity, at most `clip`:

    IPS    mean of w r                                      (Horvitz and Thompson, 1952)
    SNIPS  sum of w r / sum of w                            (Swaminathan and Joachims, 2015)
    DR     mean of q(candidate) + w (r - q(action))         (Dudik, Langford and Li, 2011)

Each is blind to what the logging policy never shows. Clipping takes a little of the candidate's reward away
where its weights were large; DR loses only what its model q did not expect.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import DataError
from pipelines.protocol.metrics import Doubles, MetricError, bootstrap_interval

SCHEMA = pa.schema(
    [
        pa.field("unit", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("propensity", pa.float64(), nullable=False),  # in (0, 1]
        pa.field("reward", pa.float64(), nullable=False),
        pa.field("candidate", pa.float64(), nullable=False),  # in [0, 1]
        pa.field("q_action", pa.float64()),  # expected reward of the item shown; without it there is no DR
        pa.field("q_candidate", pa.float64()),  # and of what the candidate would show there
    ]
)


@dataclass(frozen=True)
class OffPolicyParams:
    """Section `off_policy` of params.yaml."""

    seed: int
    clip: float  # the largest weight
    min_effective: float  # effective sample size below which nothing is said


@dataclass(frozen=True)
class Log:
    """Rows of SCHEMA as arrays (n,); `unit` holds any labels, `q_action` and `q_candidate` come together.

    Raises MetricError for shapes or chances that no log can have.
    """

    unit: npt.NDArray[Any]
    propensity: Doubles
    reward: Doubles
    candidate: Doubles
    q_action: Doubles | None = None
    q_candidate: Doubles | None = None

    def __post_init__(self) -> None:
        if (self.q_action is None) != (self.q_candidate is None):
            raise MetricError("q_action and q_candidate: only one is given; allowed: both or neither")
        for name, values in vars(self).items():
            if values is not None and len(values) != len(self.reward):
                raise MetricError(f"{name}: {len(values)} rows do not fit {len(self.reward)} rewards")
            if values is not None and name != "unit" and not np.isfinite(values).all():
                raise MetricError(f"{name}: holds a value that is no finite number; leave such rows out")
        if len(self.reward) < 1 or self.propensity.min() <= 0 or self.propensity.max() > 1:
            raise MetricError("propensity: allowed are chances above 0, at most 1, of one row or more")
        if self.candidate.min() < 0 or self.candidate.max() > 1:
            raise MetricError("candidate: allowed are chances from 0 to 1")


@dataclass(frozen=True)
class Estimate:
    """A mean reward with its 95 % interval, whole visits resampled."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OffPolicy:
    """`logged`: mean reward of the logging policy itself. `clipped`: share of the rows whose weight was cut.

    `effective`: (sum w)^2 / sum w^2, so many rows of the candidate's own the log is worth (Kish, 1965).
    """

    rows: int
    logged: Estimate
    ips: Estimate
    snips: Estimate | None  # None where the candidate shows nothing of the log
    dr: Estimate | None
    effective: float
    clipped: float
    largest: float  # weight before it was cut

    @property
    def best(self) -> Estimate:
        """The one to go by: DR where there is a model, else SNIPS."""
        return self.dr or self.snips or self.ips

    def told(self) -> str:
        """The estimate to go by, and what it rests on, in one line."""
        found = self.best
        return (
            f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f}); shown was {self.logged.value:.4f}; "
            f"{self.rows:,} places worth {self.effective:,.0f}, {self.clipped:.1%} of the weights clipped"
        )

    def warning(self, min_effective: float) -> str:
        """Why the candidate looks worse than what logged; empty where it does not, or too little is known."""
        if self.effective < min_effective or self.best.high >= self.logged.low:
            return ""
        found, before = self.best, self.logged
        return (
            f"off-policy CTR {found.value:.4f} ({found.low:.4f} to {found.high:.4f}) is below "
            f"{before.value:.4f} ({before.low:.4f} to {before.high:.4f}) of what was shown"
        )


def estimate(log: Log, params: OffPolicyParams, draws: int = 1000) -> OffPolicy:
    """All estimates of the candidate on this log."""
    raw = log.candidate / log.propensity
    weights = np.minimum(raw, params.clip)
    total = weights.sum()
    rng = np.random.default_rng(params.seed)

    def mean_of(values: Doubles) -> Estimate:
        return Estimate(float(values.mean()), *bootstrap_interval(values, rng, draws, clusters=log.unit))

    snips, dr = None, None
    if total > 0:
        ratio = (weights * log.reward).sum() / total
        # Delta method: these have the ratio as their mean, and its spread.
        snips = mean_of(ratio + weights * (log.reward - ratio) / (total / len(weights)))
    if log.q_action is not None and log.q_candidate is not None:
        dr = mean_of(log.q_candidate + weights * (log.reward - log.q_action))
    effective = float(total**2 / (weights**2).sum()) if total > 0 else 0.0
    clipped, largest = float((raw > params.clip).mean()), float(raw.max())
    logged, ips = mean_of(log.reward), mean_of(weights * log.reward)
    return OffPolicy(len(weights), logged, ips, snips, dr, effective, clipped, largest)


def expected(
    action: npt.NDArray[np.int64],
    reward: Doubles,
    policy: Doubles,
    folds: npt.NDArray[np.int64],
    prior: float,
) -> tuple[Doubles, Doubles]:
    """q of the logged action and of the candidate, each (n,), by a smoothed mean reward per action.

    `policy` (n, actions): the candidate's chances; `prior`: rows of the mean that each action starts with.
    `folds` (n,): a row is judged by a model of the other folds, so that no reward explains itself; rows of
    one visit belong to one fold.
    """
    q_action, q_candidate = np.empty(len(reward)), np.empty(len(reward))
    for fold in np.unique(folds):
        inside, size = folds == fold, policy.shape[1]
        seen = np.bincount(action[~inside], minlength=size)
        sums = np.bincount(action[~inside], weights=reward[~inside], minlength=size)
        mean = sums.sum() / max(seen.sum(), 1)
        q = (sums + prior * mean) / (seen + prior)
        q_action[inside], q_candidate[inside] = q[action[inside]], policy[inside] @ q
    return q_action, q_candidate


def read_log(path: Path) -> Log:
    """A parquet file of SCHEMA. Raises DataError for a column that lacks, and where a row cannot be."""
    step = "write it anew with the columns of pipelines/protocol/offpolicy.py, or remove it"
    try:
        table = pq.read_table(path)
        if missing := [name for name in SCHEMA.names[:5] if name not in table.column_names]:
            raise DataError(path, f"has no column '{missing[0]}'", next_step=step)
        modelled = {"q_action", "q_candidate"} <= set(table.column_names)
        names = ("propensity", "reward", "candidate", *(("q_action", "q_candidate") if modelled else ()))
        columns = {name: table[name].to_numpy().astype(np.float64) for name in names}
        return Log(np.array(table["unit"].to_pylist()), **columns)
    except (pa.ArrowException, MetricError, ValueError) as error:
        raise DataError(path, f"is no log with propensities: {error}", next_step=step) from error
