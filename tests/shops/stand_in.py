"""An `endcap` for tests of DVC alone: in the working folder a job leaves at once what its stage must leave.

The evaluation and the gate write by Endcap's own code what a made-up shop would have, whose NDCG@12 falls
with retrieve.covisit_decay.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import yaml

QUERIES = 400
NUMBERS = ("ndcg_low", "ndcg_high", "novelty", "arp", "gini")


def leave(job: str) -> None:
    """Every output of the stage, made up."""
    stage = yaml.safe_load(Path("dvc.yaml").read_text())["stages"][job]
    for out in stage.get("do", stage).get("outs", []):
        place = Path(next(iter(out)) if isinstance(out, dict) else out)
        file = place if place.suffix else place / "made.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"made by {job}\n")


def catalogue() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    items = {"item_id": ["cup", "pot"], "title": ["A cup", "A pot"]}
    pq.write_table(pa.table(items), "data/raw/items.parquet")


def evaluation() -> None:
    import numpy as np

    from pipelines.gates.scores import Part, Scores
    from pipelines.protocol.metrics import OURS, fingerprint
    from pipelines.protocol.results import MEASURES, SLICES, write_results
    from pipelines.release.scorecard import write_report

    decay = yaml.safe_load(Path("params.yaml").read_text())["retrieve"]["covisit_decay"]
    ndcg = np.random.default_rng(1).uniform(0.1, 0.5, QUERIES) + (0.6 - decay) / 10
    queries = [
        SimpleNamespace(session_id=f"s{n}", now=n, history=("pot",), relevant={"cup"}) for n in range(QUERIES)
    ]
    slices = [{name: n % 2 == 0 for name in SLICES} for n in range(QUERIES)]
    measures, listed = dict.fromkeys(MEASURES, ndcg), [["cup", f"at {decay}"]] * QUERIES
    write_results(Path("data/reports/results.parquet"), queries, listed, measures, slices)  # type: ignore[arg-type]
    shares = {"endcap": 1.0, "als": 0.5}
    models = {
        name: dict.fromkeys((*MEASURES, *NUMBERS), share * float(ndcg.mean())) | {"coverage_at_12": 0.9}
        for name, share in shares.items()
    }
    report = {"protocol": "session_continuation", "shop": "simulated", "k": 12, "candidates": 50}
    report |= {
        "queries": QUERIES,
        "span": {"from": "2026-02-23", "to": "2026-03-01"},
        "slices": {},
        "clicks": {},
    }
    report |= {"models": models, "serves": "blend", "why": "it won"}
    write_report(report)
    part = Part.of(queries, "als", ndcg, ndcg / 2, slices)  # type: ignore[arg-type]
    Scores({OURS: part}).write(Path("data/reports/scores.parquet"), fingerprint(report))


def main() -> int:
    """`stand_in.py JOB`: the job of one stage."""
    job = "_".join(word for word in sys.argv[1:] if not word.startswith("-"))
    leave(job)
    if job == "ingest":
        catalogue()
        Path("data/logs/items").mkdir(parents=True, exist_ok=True)
    elif job == "features":
        Path("data/logs/served").mkdir(parents=True, exist_ok=True)
    elif job == "two_tower":
        rows = "epoch,ndcg_at_12,recall_at_120\n1,0.1,0.2\n2,0.2,0.3\n"
        Path("data/models/final/two_tower/curves.csv").write_text(rows)
    elif job == "leakage":
        found = '{"rows": 9, "rows_that_know_the_future": 0, "queries": 9, "culprits": [], '
        found += '"queries_that_know_their_answer": 0, "max_known_labels": 0.03}'
        Path("data/reports/leakage.json").write_text(found)
    elif job == "evaluate":
        evaluation()
    elif job == "gate":
        from pipelines.release import gate

        return gate.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
