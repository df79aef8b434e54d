"""Off-policy estimates where the truth is known: a small world, and the Open Bandit sample's uniform arm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import DataError
from pipelines.protocol.metrics import MetricError, bootstrap_interval
from pipelines.protocol.offpolicy import Log, OffPolicy, OffPolicyParams, estimate, expected, read_log

OPEN_BANDIT = Path(__file__).resolve().parents[4] / "shared/data/experiments/open_bandit.parquet"
PARAMS = OffPolicyParams(seed=3, clip=50.0, min_effective=100.0)
VISITS, PLACES, ITEMS = 600, 2, 5
CTR = np.array([[0.05, 0.10, 0.20, 0.02, 0.08], [0.20, 0.04, 0.06, 0.12, 0.02]])  # (kind of visit, item)
LOGGING = np.array([[0.4, 0.2, 0.1, 0.2, 0.1], [0.1, 0.3, 0.2, 0.1, 0.3]])
CANDIDATE = np.array([[0.1, 0.2, 0.5, 0.1, 0.1], [0.4, 0.1, 0.1, 0.3, 0.1]])
TRUTH = float((0.5 * CANDIDATE * CTR).sum())


def world(seed: int, candidate: np.ndarray = CANDIDATE, visits: int = VISITS) -> Log:
    """Visits of two kinds, each with places that LOGGING filled; visits differ in how readily they click."""
    rng = np.random.default_rng(seed)
    kind = np.repeat(rng.integers(2, size=visits), PLACES)
    ready = np.repeat(rng.uniform(0.5, 1.5, visits), PLACES)
    action = np.array([rng.choice(ITEMS, p=LOGGING[k]) for k in kind])
    reward = (rng.random(len(kind)) < CTR[kind, action] * ready).astype(float)
    unit = np.repeat(np.arange(visits), PLACES)
    model = expected(action, reward, candidate[kind], unit % 2, prior=20.0)
    return Log(unit, LOGGING[kind, action], reward, candidate[kind, action], *model)


def test_the_intervals_hold_the_known_truth_in_nineteen_of_twenty_worlds() -> None:
    found = [estimate(world(seed), PARAMS, draws=200) for seed in range(200)]
    for name in ("ips", "snips", "dr"):
        ends = [getattr(one, name) for one in found]
        held = np.mean([end.low <= TRUTH <= end.high for end in ends])
        assert 0.90 <= held <= 0.99, (name, held)
        values = np.array([end.value for end in ends])
        assert abs(values.mean() - TRUTH) < 3 * values.std() / np.sqrt(len(values)), name
    widths = [(one.dr.high - one.dr.low, one.ips.high - one.ips.low) for one in found if one.dr]
    dr, ips = np.mean(widths, axis=0)
    assert dr < ips  # the model takes away what it can explain


def test_the_logging_policy_itself_is_worth_what_it_earned() -> None:
    found = estimate(world(1, LOGGING), PARAMS)
    assert found.ips.value == pytest.approx(found.logged.value) == pytest.approx(found.snips.value)  # type: ignore[union-attr]
    assert found.effective == pytest.approx(found.rows) == VISITS * PLACES
    assert (found.clipped, found.largest) == (0.0, 1.0)


def test_clipping_is_told_and_takes_value_away() -> None:
    free, cut = estimate(world(2), PARAMS), estimate(world(2), OffPolicyParams(3, 2.0, 100.0))
    assert free.clipped == 0.0 and free.largest == pytest.approx(5.0)
    assert 0.05 < cut.clipped < 0.5 and cut.ips.value < free.ips.value
    assert free.effective < cut.effective < cut.rows
    assert abs(cut.dr.value - TRUTH) < abs(cut.ips.value - TRUTH)  # type: ignore[union-attr]


def test_a_worse_candidate_is_warned_of_a_better_or_unknown_one_is_not() -> None:
    worst = np.where(CTR.min(axis=1, keepdims=True) == CTR, 0.96, 0.01)
    found = estimate(world(4, worst, visits=5000), PARAMS)
    told = found.warning(100.0)
    assert told.startswith("off-policy CTR 0.0") and "is below" in told
    assert found.warning(100_000.0) == ""
    assert estimate(world(4), PARAMS).warning(100.0) == ""


def test_a_candidate_that_shows_nothing_of_the_log_has_no_ratio() -> None:
    log = Log(np.arange(3), np.full(3, 0.5), np.ones(3), np.zeros(3))
    found = estimate(log, PARAMS)
    assert (found.ips.value, found.snips, found.dr, found.effective) == (0.0, None, None, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propensity": np.zeros(2)}, "propensity: allowed are chances above 0, at most 1"),
        ({"candidate": np.full(2, 1.5)}, "candidate: allowed are chances from 0 to 1"),
        ({"reward": np.array([0.0, np.nan])}, "reward: holds a value that is no finite number"),
        ({"unit": np.arange(3)}, "unit: 3 rows do not fit 2 rewards"),
        ({"q_action": np.zeros(2)}, "only one is given; allowed: both or neither"),
    ],
)
def test_a_log_that_cannot_be_is_refused(change: dict[str, np.ndarray], message: str) -> None:
    whole = {name: np.full(2, 0.5) for name in ("propensity", "reward", "candidate")} | {"unit": np.arange(2)}
    with pytest.raises(MetricError, match=message):
        Log(**(whole | change))


def test_a_file_is_read_and_one_without_propensities_is_refused(tmp_path: Path) -> None:
    rows = {"unit": ["a", "b"], "action": ["cup", "pot"], "propensity": [0.5, 0.1], "reward": [1.0, 0.0]}
    path = tmp_path / "off_policy.parquet"
    pq.write_table(pa.table(rows | {"candidate": [0.25, 0.1]}), path)
    assert estimate(read_log(path), PARAMS).ips.value == pytest.approx(0.25)
    pq.write_table(pa.table({name: rows[name] for name in ("unit", "action", "reward")}), path)
    with pytest.raises(DataError, match="has no column 'propensity'"):
        read_log(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is no log with propensities"):
        read_log(path)


@pytest.mark.skipif(not OPEN_BANDIT.exists(), reason="the Open Bandit sample is not here")
@pytest.mark.parametrize("campaign", ["men", "women"])
def test_the_uniform_policy_is_estimated_from_thompson_sampling_logs(campaign: str) -> None:
    """bts logged with known propensities; what `random` earned in the same week is the truth to find."""
    data = pq.read_table(
        OPEN_BANDIT, columns=["policy", "campaign", "item_id", "click", "propensity_score", "position"]
    ).to_pandas()
    data = data[data["campaign"] == campaign]
    shown, uniform = (data[data["policy"] == name] for name in ("bts", "random"))
    items = data["item_id"].nunique()
    found = _estimated(shown, items)
    clicks = uniform["click"].to_numpy(np.float64)
    low, high = bootstrap_interval(clicks, np.random.default_rng(1))
    for one in (found.snips, found.dr):
        assert one is not None and one.low < one.high
        assert max(one.low, low) <= min(one.high, high), (one, clicks.mean(), low, high)
    assert 0 < found.effective < len(shown) / 2 and found.clipped < 0.2


def _estimated(shown: pd.DataFrame, items: int) -> OffPolicy:
    action, reward = shown["item_id"].to_numpy(), shown["click"].to_numpy(np.float64)
    policy, rows = np.full((len(shown), items), 1 / items), np.arange(len(shown))
    model = expected(action, reward, policy, rows % 2, prior=200.0)
    log = Log(rows, shown["propensity_score"].to_numpy(), reward, np.full(len(shown), 1 / items), *model)
    return estimate(log, PARAMS, draws=300)
