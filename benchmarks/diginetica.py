"""The whole on diginetica's sessions (the split of SR-GNN): lists of bare ids, by the project's own parts.

    python benchmarks/diginetica.py --share .1 --epochs 2 --test 2000    a try on the newest tenth
    python benchmarks/diginetica.py --keep /tmp/diginetica               all of it

Sources (tower, co-visits, what comes next, EASE, SLIST, V-SKNN) propose, and an order of candidates that
was taught on the last 5 % of the training sessions, in file order, which is time order, decides. The sources
whose answers taught it had not seen those 5 %; for the test they have. Every choice is made on validation,
the test prefixes are asked once, each by itself. P@20: is the next item among the first 20 of all items,
those of the prefix not left out. An item that stands level with another counts as behind it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from idsources import Source, chosen, counted, rank_of
from idtower import IdTower, params, trained
from listwise import BLOCK, Asking, Lists, Whole, taught
from nextitem import FILES, MRR, VALIDATION_SHARE, Asked, K, questions, read, reciprocal
from peers.contract import Rows, Visits
from verdict import Columns, Result, lines, measured, summed

from feature_repo.quiet import hush

DATA = Path(__file__).resolve().parents[1] / "../shared/data/diginetica"
TAUGHT = 0.7  # of the validation visits, the oldest; the others judge
WHOLE, TOWER = "endcap, whole", "own tower"
COLUMNS: Columns = (
    (MRR, "MRR@20", ".4f"),
    ("p_at_20", "P@20", ".4f"),
    ("validation_mrr", "MRR@20, validation", ".4f"),
    ("validation_p", "P@20, validation", ".4f"),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the two parquet files")
    parser.add_argument("--share", type=float, default=1.0, help="of the training sessions, the newest")
    parser.add_argument("--epochs", type=int, default=10, help="of the tower, without the last 5 %%")
    parser.add_argument("--refit", type=int, default=3, help="epochs more, with them")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--batch", type=int, default=3072, help="positions per step, with the empty ones")
    parser.add_argument("--threads", type=int, default=1, help="of the tower")
    parser.add_argument("--without", default="", help="counted sources to leave out, by commas")
    parser.add_argument("--tried", type=int, default=500, help="prefixes that choose the sources' settings")
    parser.add_argument("--test", type=int, help="test prefixes, drawn by chance; default: all")
    parser.add_argument("--keep", type=Path, help="where the tower's epochs go, and a stopped run goes on")
    return parser.parse_args()


class Costs:
    """What each part took: seconds by the clock, CPU seconds, and how far memory rose (10^9 bytes)."""

    def __init__(self) -> None:
        self.parts: dict[str, tuple[float, float, float]] = {}

    def of(self, part: str, work: Callable[[], Any]) -> Any:
        """The result of `work`; parts of one name add up."""
        found: list[Any] = []
        began = time.perf_counter()
        cost = measured(lambda: found.append(work()))
        wall, cpu, gb = self.parts.get(part, (0.0, 0.0, 0.0))
        took = time.perf_counter() - began
        self.parts[part] = wall + took, cpu + cost.cpu_seconds, max(gb, cost.peak_gb)
        print(f"{part}: {took:.0f} s, {cost.cpu_seconds:.0f} CPU s", file=sys.stderr, flush=True)
        return found[0]

    def lines(self) -> list[str]:
        rows = ["| part | s | CPU s | GB |", "|---|---:|---:|---:|"]
        rows += [f"| {n} | {wall:.0f} | {cpu:.0f} | {gb:.1f} |" for n, (wall, cpu, gb) in self.parts.items()]
        wall, cpu, _ = np.sum(list(self.parts.values()), axis=0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return [*rows, f"| in all | {wall:.0f} | {cpu:.0f} | {peak:.1f} |"]


def span(visits: Visits, first: int, end: int) -> Visits:
    """The visits first..end-1 of the same items."""
    items = visits.items[visits.starts[first] : visits.starts[end]]
    return Visits(items, visits.starts[first : end + 1] - visits.starts[first], visits.n)


def found(rank: Rows) -> tuple[float, float]:
    """P@20 and MRR@20."""
    place = np.where(rank < K, rank + 1, 0)
    return float((place > 0).mean()), float(reciprocal(place).mean())


def learn(
    args: argparse.Namespace, visits: Visits, costs: Costs
) -> tuple[Lists, dict[str, Rows], Asked, Asking]:
    """Candidates of the validation prefixes by sources without that span, the wanted items' ranks by each
    source, those prefixes, and the sources as they stand at the end.
    """
    cut = round((1 - VALIDATION_SHARE) * len(visits))
    earlier, asked = span(visits, 0, cut), questions(visits, cut)
    few = asked.drawn(args.tried, seed=1)
    chose = costs.of("settings of the counted sources", lambda: chosen(earlier, few))
    print(chose, file=sys.stderr)

    def fits(known: Visits) -> dict[str, Callable[[], Source]]:
        return {n: fit for n, fit in counted(known, chose).items() if n not in args.without.split(",")}

    setting = params(args.dim, args.batch, args.epochs, args.threads)
    towers = trained(visits, cut, setting, args.refit, args.keep)
    for number in range(1, args.epochs + args.refit + 1):
        name, loss, fitted = costs.of(TOWER, lambda: next(towers))
        tower = IdTower(fitted, setting.scale)
        if number <= args.epochs:
            told = found(rank_of(tower, few))
            print(f"{name}: loss {loss:.3f}, P@20 {told[0]:.3f}, MRR@20 {told[1]:.3f}", file=sys.stderr)
        if number == args.epochs:
            sources: dict[str, Source] = {TOWER: tower}
            for source, fit in fits(earlier).items():
                sources[source] = costs.of("counted, for validation", fit)
            asking = Asking(sources, earlier)
            lists, alone = costs.of("validation asked", partial(asking.all, asked))
            del sources, asking
    sources = {TOWER: tower, **{n: costs.of(n, fit) for n, fit in fits(visits).items()}}
    return lists, alone, asked, Asking(sources, visits)


def answers(asking: Asking, whole: Whole, asked: Asked) -> Iterator[dict[str, Rows]]:
    """Ranks of the wanted items, by each source and the whole, block by block."""
    for at in range(0, len(asked.wanted), BLOCK):
        lists, alone = asking.lists(asked.prefixes[at : at + BLOCK], asked.wanted[at : at + BLOCK])
        yield {**alone, WHOLE: lists.ranks(whole.scores(lists))}


def report(args: argparse.Namespace) -> None:
    """Learn, ask and print."""
    visits, test = read(args.data)
    visits = span(visits, len(visits) - round(args.share * len(visits)), len(visits))
    test, costs = test.drawn(args.test, seed=1), Costs()
    lists, validation, asked, asking = learn(args, visits, costs)
    teach = asked.visits < np.quantile(asked.visits, TAUGHT)
    whole, orders = costs.of(WHOLE, lambda: taught(lists, teach, seed=7))
    recall = lists.label.sum() / len(lists.wanted)
    size = len(lists.item) / len(lists.wanted)
    print(f"candidates: {size:.0f} a prefix, recall {recall:.3f} on validation")
    for name, rank in orders.items():
        print(
            f"order by {name}: P@20 {found(rank)[0]:.4f}, MRR@20 {found(rank)[1]:.4f} where it was not taught"
        )
    parts = costs.of("test asked", lambda: list(answers(asking, whole, test)))
    judged = {name: rank[~teach] for name, rank in validation.items()}
    judged[WHOLE] = next(iter(orders.values()))
    results: dict[str, Result] = {}
    for name in parts[0]:
        place = np.concatenate([part[name] for part in parts])
        place = np.where(place < K, place + 1, 0)
        p, mrr = found(judged[name])
        values = {MRR: reciprocal(place)[None], "p_at_20": (place > 0)[None].astype(np.float64)}
        told = {"validation_p": p, "validation_mrr": mrr, "fit_cpu_s": costs.parts[name][1]}
        results[name] = Result(values, {**told, "fit_gb": costs.parts[name][2]})
    results[WHOLE].told["answer_ms"] = 1000 * costs.parts["test asked"][1] / len(test.wanted)
    models = summed(results, MRR, test.visits, [name for name in results if name != WHOLE], seed=1)
    print(f"{len(visits):,} sessions taught, {len(test.wanted):,} test prefixes\n")
    print("\n".join([*lines(models, COLUMNS), "", *costs.lines()]))


def main() -> None:
    args = arguments()
    if not (args.data / FILES[0]).exists():
        print(f"skipped: {args.data} is absent; it holds {' and '.join(FILES)}")
        return
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    report(args)


if __name__ == "__main__":
    hush()
    main()
