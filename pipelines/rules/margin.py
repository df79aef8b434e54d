"""`endcap margin`: what each weight of the margin costs in clicks and brings in margin, on logged answers.

The lists of the newest logged answers are made again under each weight (params.yaml, margin.tried), by the
rules that hold and without a draw; expected clicks are those of the release's calibrated chances, corrected
surface by surface by how far they came true on these answers. Surfaces with filters of their own take no
part: what their filters would have let stand under another weight is in no log.

data/reports/margin.json, margin.png
"""

from typing import Annotated, Any

import orjson
import typer
from redis import Redis

from feature_repo.errors import DataError
from feature_repo.files import write_json
from feature_repo.online.connection import connect
from feature_repo.params import load, shop
from feature_repo.picture import Figure
from feature_repo.places import MARGIN, MARGIN_PICTURE, at
from feature_repo.terminal import console, table
from monitoring.fitting.reliability import clicked, reliability
from monitoring.fitting.relisted import Answers
from monitoring.fitting.showroom import Showroom
from pipelines.blend.profit import Margin
from serving.live.exposures import SERVED
from serving.release import workers
from serving.rules import published
from serving.rules.compiled import Compiled
from serving.stages.odds import Profit


def main(
    last: Annotated[int, typer.Option(min=1, help="So many of the newest logged answers.")] = 500,
    json_output: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Draw clicks against margin over the weights of expected profit, on logged answers."""
    from monitoring.fitting import showroom  # Feast takes seconds

    redis = connect()
    report = traded(redis, showroom.opened(redis), load("margin", Margin).tried, last, workers.now(redis))
    write_json(at(MARGIN), report)
    draw(report).savefig(_made(), dpi=110, metadata={"Software": None})
    if json_output:
        print(orjson.dumps(report).decode())
        return 0
    shown = table(
        f"{report['answers']:,} logged answers", [">weight", ">expected CTR", ">margin per impression"]
    )
    for row in report["weights"]:
        shown.add_row(f"{row['weight']:g}", f"{row['ctr']:.3%}", f"{row['margin']:.3%}")
    console().print(shown)
    if report["crafted"]:
        console().print(f"left out: {report['crafted']:,} answers of surfaces with filters of their own")
    told = ", ".join(f"{surface} x {of:.2f}" for surface, of in report["factor"].items())
    told = told or "not at all, too few answers have a known fate"
    console().print(f"corrected by what was clicked: {told}")
    return 0


def traded(redis: Redis, room: Showroom, tried: tuple[float, ...], last: int, now: int) -> dict[str, Any]:
    """Per weight: expected clicks per slot, and those times the margin.

    Raises DataError where the release has no calibrated chances, or no answer is logged.
    """
    chances, diversity = room.bundle.profit.chances, room.bundle.diversify
    if not chances.known:
        step = "run `endcap order` on logged lists with enough clicks, then bundle and promote"
        raise DataError("the release", "has no calibrated chance of a click", next_step=step)
    entries: Any = redis.xrevrange(SERVED, count=last)
    entries = entries[::-1]
    logged = list(Answers(entries, room))
    answers = [answer for answer in logged if not answer.crafted]
    if not answers:
        what = "holds no answer of a surface without filters of its own"
        raise DataError(SERVED, what, next_step="serve shoppers (serving.served_share)")
    true = reliability(answers, clicked(redis, entries), chances)
    factor = true["factor"] if true else {}
    rules = Compiled(published.documents(published.read(redis))[0], room.matrix, now)
    rows = []
    for weight in tried:
        slots = clicks = margin = 0.0
        for answer in answers:
            steering = rules.steering(answer.request, answer.now)
            items = answer.list(diversity, steering, Profit(weight, chances))
            scale = factor.get(answer.request.surface, 1.0)
            hits, gained = answer.expected(chances, items)
            slots, clicks, margin = slots + len(items), clicks + scale * hits, margin + scale * gained
        rows.append({"weight": weight, "ctr": clicks / slots, "margin": margin / slots})
    return {
        "shop": shop().name,
        "answers": len(answers),
        "crafted": len(logged) - len(answers),
        "factor": factor,
        "serves": room.bundle.profit.weight,
        "weights": rows,
    }


def draw(report: dict[str, Any]) -> Figure:
    """Expected CTR against margin per impression, a point per weight; ringed: as it serves."""
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    x, y = ([row[name] for row in report["weights"]] for name in ("margin", "ctr"))
    axes.plot(x, y, "o-", color="#1b6ca8")
    for row, *place in zip(report["weights"], x, y, strict=True):
        point = place[0], place[1]
        axes.annotate(f"{row['weight']:g}", point, textcoords="offset points", xytext=(5, 5))
        if row["weight"] == report["serves"]:
            axes.plot(*point, "o", color="none", markeredgecolor="#1b6ca8", markersize=14)
    axes.set(xlabel="expected clicks x margin, per impression", ylabel="expected CTR")
    axes.set_title(f"{report['shop']}: weight of the margin, ringed: as it serves", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _made() -> Any:
    path = at(MARGIN_PICTURE)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
