"""Lists of Endcap beside those of well-known recommenders: the same queries, histories, items and metrics.

    python benchmarks/quality.py --shop merch --sample 500 --peers V-SKNN,co-visits     one minute
    python benchmarks/quality.py --shop merch --seeds 3                                 all peers

`merch` and `simulated` need a shop whose pipeline has run (`dvc repro`; ENDCAP_HOME names its folder). Every
setting is chosen on the validation span; the test span is asked once. The grids stand in benchmarks/peers.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from asked import visits_before
from continuation import NDCG, OURS, cases_of, result_of, run_ours, run_peer
from peers.roster import PEERS
from verdict import draw, lines, summed

from feature_repo.files import write_json
from feature_repo.params import shop
from feature_repo.quiet import hush
from pipelines.protocol.queries import product_events
from training.dataset import read_catalogue

TRUTH = ("true best list", "attainable")
SHOPS = ("merch", "simulated", "simulated_12k")
COLUMNS = (
    (NDCG, "NDCG@12", ".3f"),
    ("first_query", "first query", ".3f"),
    ("recall_at_12", "recall@12", ".3f"),
    ("coverage_at_12", "coverage", ".2f"),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shop", choices=SHOPS, default="merch")
    parser.add_argument("--seeds", type=int, default=1, help="fits of peers that depend on chance")
    parser.add_argument("--sample", type=int, help="queries of the test span; default: as the evaluation")
    parser.add_argument("--validation", type=int, default=1000, help="queries that settings are chosen on")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument(
        "--out", type=Path, default=Path("data/reports"), help="of quality_<shop>.json and .png"
    )
    args = parser.parse_args()
    args.peers = [name for name in args.peers.split(",") if name]
    if unknown := [name for name in args.peers if name not in PEERS]:
        parser.error(f"--peers: '{unknown[0]}' is unknown; allowed: {', '.join(PEERS)}")
    if min(args.seeds, args.validation, args.sample or 1) < 1:
        parser.error("--seeds, --sample and --validation: at least 1")
    return args


def main() -> None:
    args = arguments()
    active = shop()
    if active.name != args.shop:
        sys.exit(f"--shop: {args.shop}, but the folder's shop is {active.name}; set ENDCAP_HOME to one of it")
    cases = cases_of(args.sample, args.validation)
    if not all(cases):
        sys.exit(f"{args.shop}: no query in validation or test; move the cuts of the shop")
    before = visits_before(active.valid_from), visits_before(active.test_from)
    candidates = product_events()["item_id"].nunique()
    results = run_ours(cases[1], candidates)
    for name in args.peers:
        began = time.perf_counter()
        results[name] = run_peer(name, before, cases, candidates, list(range(1, args.seeds + 1)))
        told = results[name].told
        settings = {**told["fit"], **told["ask"]}
        print(
            f"{name}: {settings}, the best of {told['tried']}, {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    sessions = np.array([case.query.session_id for case in cases[1]])
    single = [name for name in results if name not in OURS]
    columns = COLUMNS
    if active.adapter == "simulated":
        from truth import Truth

        truths = Truth().lists(cases[1], read_catalogue().item_ids, seed=1)
        for name, lists in zip(TRUTH, truths, strict=True):
            results[name] = result_of([lists], cases[1], candidates, {})
        columns = (*COLUMNS, ("of_attainable", "of attainable", ".2f"))
    models = summed(results, NDCG, sessions, single, seed=1)
    for found in models.values():
        if TRUTH[1] in models:
            found["of_attainable"] = found[NDCG] / models[TRUTH[1]][NDCG]
    title = f"{args.shop}: {len(cases[1]):,} queries since {active.test_from:%Y-%m-%d}"
    report = {"shop": args.shop, "queries": len(cases[1]), "validation": len(cases[0]), "seeds": args.seeds}
    report |= {"from": active.test_from.isoformat(), "visits": len(before[1]), "models": models}
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"quality_{args.shop}.json"
    write_json(file, report)
    draw(title, models, NDCG, "NDCG@12, 95 % interval", file.with_suffix(".png"))
    print("\n".join([title, "", *lines(models, columns), ""]))
    print(f"{file} and {file.with_suffix('.png')} written")


if __name__ == "__main__":
    hush()
    main()
