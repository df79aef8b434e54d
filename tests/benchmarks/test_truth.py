"""What could be known of the simulated shop's queries: the repeated simulation is the exported one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from asked import Case
from continuation import ndcg_of
from peers.contract import Past, best
from truth import COPIES, LANDED, Truth

from feature_repo.clock import micros
from feature_repo.errors import DataError
from feature_repo.params import shop
from feature_repo.persons.privacy import persons
from pipelines.ingest import ingest
from pipelines.protocol.queries import make_queries, product_events
from pipelines.simulate import simulate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["simulate"]["sizes"]["simulated"] = params["simulate"]["sizes"]["tiny"]
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_HOME", str(folder))
        assert not simulate.main() and not ingest.main()
        yield folder


@pytest.fixture(scope="module")
def ids(home: Path) -> list[str]:
    found: list[str] = pq.read_table(home / "data/raw/items.parquet")["item_id"].to_pylist()
    return found


@pytest.fixture(scope="module")
def cases(home: Path, ids: list[str]) -> list[Case]:
    """Queries of the test span; all may be listed but what the visit has seen."""
    row = {item: at for at, item in enumerate(ids)}
    found = []
    rng = np.random.default_rng(0)
    for query in make_queries(product_events(), shop().test_from, None, 150, rng):
        seen = np.array([row[item] for item in query.history])
        bits = np.packbits(np.isin(np.arange(len(ids)), seen, invert=True))
        wanted = frozenset(row[item] for item in query.relevant)
        past = Past(seen, np.ones(len(seen), np.bool_))
        found.append(Case(query, past, wanted, len(wanted), bits, bits, {}, {}))
    return found


@pytest.fixture(scope="module")
def truth(home: Path) -> Truth:
    return Truth()


def test_the_attainable_list_beats_the_true_best_list_which_beats_popularity(
    truth: Truth, cases: list[Case], ids: list[str]
) -> None:
    clicked, later = truth.lists(cases, ids, seed=1)
    counts = product_events()["item_id"].value_counts().reindex(ids).fillna(0).to_numpy(float)
    popular = np.array([best(counts, counts, case.eligible(len(ids)), 12) for case in cases])
    reached = [float(ndcg_of(lists, cases)[0].mean()) for lists in (popular, clicked, later)]
    assert 2 * reached[0] < reached[1] < reached[2] < 1
    for lists in (clicked, later):
        assert not any(set(one) & set(case.past.rows) for one, case in zip(lists, cases, strict=True))
    assert truth.lists(cases[:20], ids, seed=1)[0].tolist() == clicked[:20].tolist()


def test_the_state_of_a_query_is_that_of_the_visit_at_its_instant(
    truth: Truth, cases: list[Case], ids: list[str]
) -> None:
    to_world = np.array([truth.world.row[item] for item in ids])
    states = [truth._state(case, to_world) for case in cases]
    for case, state in zip(cases, states, strict=True):
        assert case.query.session_id == persons().of(f"s{state.session:07d}")
        assert truth.world.shop.item_ids[state.focus] == case.query.history[-1]
        assert abs(case.query.now - micros(truth.world.start) - state.at) < 1000  # us: ties are parted
        assert len(state.rest) == len(state.chances) < 12
        assert (state.chances > 0).all() and (state.chances < 0.31).all()
        if state.step == LANDED:
            assert len(case.query.history) == 1 and not len(state.rest)
            assert state.leaf == truth.sessions.leaf[state.session]
    assert {state.step for state in states} >= {LANDED, 0, 1}
    assert any(state.linked for state in states) and any(len(state.rest) for state in states)


def test_walking_on_contacts_what_is_left_of_the_page_as_often_as_its_chance_says(
    truth: Truth, cases: list[Case], ids: list[str]
) -> None:
    to_world = np.array([truth.world.row[item] for item in ids])
    states = [truth._state(case, to_world) for case in cases]
    found = truth._later(states, np.random.default_rng(3))
    share = np.concatenate([found[at, state.rest] for at, state in enumerate(states)])
    chance = np.concatenate([state.chances for state in states])
    assert share.mean() >= chance.mean() - 4 * np.sqrt(chance.mean() / (len(chance) * COPIES))
    assert share.mean() < chance.mean() + 0.05  # what later pages add


def test_another_shop_than_that_of_params_yaml_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = yaml.safe_load((home / "params.yaml").read_text())
    params["simulate"]["seed"] += 1
    (home / "other").mkdir()
    (home / "other" / "params.yaml").write_text(yaml.safe_dump(params))
    (home / "other" / "data").symlink_to(home / "data")
    monkeypatch.setenv("ENDCAP_HOME", str(home / "other"))
    with pytest.raises(DataError, match=r"is not what `simulate` gives.*run `endcap simulate` and all"):
        Truth()
