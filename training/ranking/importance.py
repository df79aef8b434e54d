"""What a ranker's fit leaves for people: curve, columns' shares, chances, one picture."""

from pathlib import Path

from feature_repo.files import write_json
from feature_repo.picture import Figure
from training.ranking.calibration import Calibration
from training.ranking.examples import Fitted


def write(fitted: Fitted, calibration: Calibration, folder: Path) -> list[Path]:
    """curve.csv (round, ndcg_at_12), importance.csv (column, share), calibration.json (score, chance)
    and ranker.png; their paths."""
    curve = folder / "curve.csv"
    lines = [f"{i},{value:.6f}" for i, value in enumerate(fitted.curve, 1)]
    curve.write_text("\n".join(["round,ndcg_at_12", *lines]) + "\n")
    shares = fitted.importance()
    importance = folder / "importance.csv"
    importance.write_text("\n".join(["column,share", *(f"{c},{s:.6f}" for c, s in shares.items())]) + "\n")
    picture = folder / "ranker.png"
    _draw(fitted, calibration, shares, picture)
    chances = folder / "calibration.json"
    write_json(chances, calibration.told())
    return [curve, importance, chances, picture]


def _draw(fitted: Fitted, calibration: Calibration, shares: dict[str, float], path: Path) -> None:
    figure = Figure(figsize=(14, 5), layout="constrained")
    left, right, chances = figure.subplots(1, 3)
    left.plot(range(1, len(fitted.curve) + 1), fitted.curve, color="#1b6ca8")
    left.axvline(fitted.best_round, color="#7a8793", linestyle=":")
    place = fitted.best_round, min(fitted.curve)
    left.annotate(f" {fitted.best_round} {fitted.unit}", place, color="#7a8793")
    left.set(xlabel=fitted.unit, ylabel="NDCG@12, validation")
    left.set_title(f"Choosing the number of {fitted.unit}", loc="left")
    names = list(shares)[::-1]
    right.barh(names, [shares[name] for name in names], color="#1b6ca8")
    right.set(xlabel=f"share of {fitted.weighed}")
    right.set_title("What the ranker looks at", loc="left")
    right.tick_params(axis="y", labelsize=7)
    told, true, _ = zip(*calibration.reliability, strict=True)
    chances.plot([0, max(told)], [0, max(told)], color="#7a8793", linestyle=":")
    chances.plot(told, true, marker="o", color="#1b6ca8")
    chances.set(xlabel="chance told", ylabel="share that was touched")
    chances.set_title(f"Chances: Brier {calibration.brier:.4f}, plain {calibration.plain:.4f}", loc="left")
    for axes in (left, right, chances):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
