"""Lists of Endcap beside those of well-known recommenders: the same queries, histories, items and metrics.

    python benchmarks/quality.py --shop merch --sample 300 --validation 100 --peers V-SKNN,EASE     a minute
    python benchmarks/quality.py --shop simulated --seeds 3                                         all peers
    python benchmarks/quality.py --shop diginetica --data ../shared/data/diginetica

`merch` and `simulated` need a shop whose pipeline has run (`dvc repro`; ENDCAP_HOME names its folder);
diginetica is lists of ids, and peers alone are asked. Every setting is chosen on the validation span, the
test span is asked once. The grids stand in benchmarks/peers, docs/quality.md tells how to read the table.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers.roster import PEERS
from verdict import Columns, Result, draw, lines, summed

from feature_repo.errors import EndcapError
from feature_repo.files import write_json
from feature_repo.params import shop
from feature_repo.places import REPORTS, at
from feature_repo.quiet import hush

TRUTH = ("true best list", "attainable")
SHOPS = ("merch", "simulated", "simulated_12k", "diginetica")
OF_LISTS = ("popularity", "V-SKNN", "co-visits", "EASE", "SLIST")  # asked on diginetica by default
CONTINUATION: Columns = (
    ("ndcg_at_12", "NDCG@12", ".3f"),
    ("first_query", "first query", ".3f"),
    ("recall_at_12", "recall@12", ".3f"),
    ("coverage_at_12", "coverage", ".2f"),
    ("unbarred", "NDCG@12, purchases kept", ".3f"),
)
NEXT: Columns = (("mrr_at_20", "MRR@20", ".3f"), ("p_at_20", "P@20", ".3f"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shop", choices=SHOPS, help="default: the shop of the folder")
    parser.add_argument("--seeds", type=int, default=1, help="fits of peers that depend on chance")
    parser.add_argument("--sample", type=int, help="test queries; default: as evaluated, 5,000 of diginetica")
    parser.add_argument("--validation", type=int, default=1000, help="queries that settings are chosen on")
    parser.add_argument("--peers", help=f"of {', '.join(PEERS)}; default: all, of diginetica the first five")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/diginetica"), help="of diginetica")
    parser.add_argument("--out", type=Path, default=at(REPORTS), help="where the report goes")
    args = parser.parse_args()
    args.shop = args.shop or shop().name
    default = OF_LISTS if args.shop == "diginetica" else PEERS
    args.peers = list(default) if args.peers is None else [name for name in args.peers.split(",") if name]
    if unknown := [name for name in args.peers if name not in PEERS]:
        parser.error(f"--peers: '{unknown[0]}' is unknown; allowed: {', '.join(PEERS)}")
    if min(args.seeds, args.validation, args.sample or 1) < 1:
        parser.error("--seeds, --sample and --validation: at least 1")
    return args


def asked_in_turn(names: list[str], ask: Callable[[str], Result]) -> dict[str, Result]:
    """The result of each peer; a line tells what it chose. Ctrl-C leaves out those that are not done."""
    results: dict[str, Result] = {}
    for name in names:
        began = time.perf_counter()
        try:
            results[name] = ask(name)
        except KeyboardInterrupt:
            print(f"stopped: without {', '.join(names[len(results) :])}", flush=True)
            break
        told = results[name].told
        settings, took = {**told["fit"], **told["ask"]}, time.perf_counter() - began
        print(f"{name}: {settings}, the best of {told['tried']}, {took:.0f} s", flush=True)
    return results


def next_items(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any], Columns]:
    """Report, models and columns of diginetica."""
    from nextitem import MRR, read, run

    visits, every = read(args.data)
    asked, seeds = every.drawn(args.sample or 5000, seed=1), list(range(1, args.seeds + 1))
    results = asked_in_turn(args.peers, lambda name: run(name, visits, asked, args.validation, seeds))
    models = summed(results, MRR, asked.visits, list(results), seed=1)
    return {"queries": len(asked.wanted), "of": len(every.wanted), "visits": len(visits)}, models, NEXT


def continuations(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any], Columns]:
    """Report, models and columns of a shop whose pipeline has run."""
    from asked import visits_before
    from continuation import NDCG, OURS, cases_of, result_of, run_ours, run_peer

    from pipelines.protocol.queries import product_events
    from training.dataset import read_catalogue

    active, columns = shop(), CONTINUATION
    if active.name != args.shop:
        sys.exit(f"--shop: {args.shop}, but the folder's shop is {active.name}; set ENDCAP_HOME to one of it")
    cases = cases_of(args.sample, args.validation)
    if not all(cases):
        sys.exit(f"{args.shop}: no query in validation or test; move the cuts of the shop")
    before, seeds = (visits_before(active.valid_from), visits_before(active.test_from)), args.seeds
    candidates = product_events()["item_id"].nunique()
    results = run_ours(cases[1], candidates)
    results |= asked_in_turn(
        args.peers, lambda name: run_peer(name, before, cases, candidates, list(range(1, seeds + 1)))
    )
    single = [name for name in results if name not in OURS]
    if active.adapter == "simulated":
        from truth import Truth

        lists = Truth().lists(cases[1], read_catalogue().item_ids, seed=1)
        results |= {
            name: result_of([found], cases[1], candidates, {})
            for name, found in zip(TRUTH, lists, strict=True)
        }
        columns = (*CONTINUATION, ("of_attainable", "of attainable", ".2f"))
    sessions = np.array([case.query.session_id for case in cases[1]])
    models = summed(results, NDCG, sessions, single, seed=1)
    for found in models.values():
        found["of_attainable"] = found[NDCG] / models[TRUTH[1]][NDCG] if TRUTH[1] in models else None
    told = {"queries": len(cases[1]), "validation": len(cases[0]), "visits": len(before[1])}
    return told | {"from": active.test_from.isoformat()}, models, columns


def main() -> None:
    args = arguments()
    try:
        told, models, columns = (next_items if args.shop == "diginetica" else continuations)(args)
    except EndcapError as error:
        sys.exit(str(error))
    title = f"{args.shop}: {told['queries']:,} queries, peers taught by {told['visits']:,} visits"
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"quality_{args.shop}.json"
    write_json(file, {"shop": args.shop, "seeds": args.seeds, **told, "models": models})
    metric, label, _ = columns[0]
    draw(title, models, metric, f"{label}, 95 % interval", file.with_suffix(".png"))
    print("\n".join([title, "", *lines(models, columns), ""]))
    print(f"{file} and {file.with_suffix('.png')} written")


if __name__ == "__main__":
    hush()
    main()
