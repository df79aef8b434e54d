"""What the clicks on logged lists say of the ranker's score and of an item's attraction, phase by phase.

    log odds of a click = of the surface + b * log(position) + ranker * score + pull * attraction

Given that an item was shown its popularity says nothing more: what is shown often is touched often. The trees
are those that have not seen the lists' span; the ranker was never asked about visits without any contact, so
that a stranger's list is the attraction's alone. A phase keeps the weights of params.yaml where it has few
clicks, or where the attraction tells no more than the score does (likelihood ratio, 5 %).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit

from feature_repo.assemble.visitor import history
from pipelines.blend.pages import Page
from pipelines.protocol.known import Known, answers
from serving.stages.fitted import Models, user_vector
from serving.stages.odds import PHASES, Clicks, phase
from serving.stages.rank import Ranker, rank
from serving.stages.retrieve import Retrieve, Scored
from serving.types import Candidates

Doubles = npt.NDArray[np.float64]
CREDIBLE = 3.84  # twice the gain in log likelihood of one weight, by chance exceeded in 5 %
PENALTY = 1e-3  # on squared weights: a surface without clicks has a finite one
K = 12
COLUMNS = {"page": np.int64, "row": np.int64, "phase": object, "surface": object, "position": np.float64}
COLUMNS |= {"clicked": np.bool_, "attraction": np.float64, "popular": np.float64, "score": np.float32}
NONE_SHOWN = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})


class Fit(NamedTuple):
    """Weights of the two columns, neither below 0, and the log likelihood that they reach."""

    ranker: float
    attraction: float
    likelihood: float


def examples(
    pages: Sequence[Page], ranker: Ranker, models: Models, params: Retrieve, processes: int
) -> pd.DataFrame:
    """A row per shown item that the models know: page, phase, surface, position, clicked, and its scores."""
    row = {item: i for i, item in enumerate(models.ids)}

    def answer(known: Known) -> pd.DataFrame:
        query, _, visitor, matrix = known
        page = pages[query.id]
        inside = np.array([item in row for item in page.items])
        rows = np.array([row[item] for item in page.items if item in row], np.int64)
        past = history(visitor, matrix)
        scores = Scored(params, models, user_vector(models, visitor, past), past).of(rows)
        ranked = rank(ranker, Candidates(rows, ("listed",) * len(rows), scores), visitor, past, matrix)
        told = pd.DataFrame(
            {
                "page": query.id,
                "row": rows,
                "phase": phase(past),
                "surface": query.surface,
                "position": page.position[inside],
                "clicked": page.clicked[inside],
                "attraction": models.attraction[rows],
                "popular": matrix.popularity()[rows],
            }
        )
        return told.assign(score=told["row"].map(dict(zip(ranked.rows, ranked.score, strict=True))))

    queries = [page.query for page in pages]
    found = list(answers(queries, models.ids, K, "clicks", answer, processes))
    return pd.concat(found, ignore_index=True) if found else NONE_SHOWN


def learn(shown: pd.DataFrame, shipped: Clicks, min_clicks: int) -> dict[str, Any]:
    """`ranker` and `attraction` by phase, and what they were learned from; `shown` as examples gives it."""
    report: dict[str, Any] = {"ranker": {}, "attraction": {}, "phases": {}}
    for name in PHASES:
        mine = shown[shown["phase"] == name]
        clicks = int(mine["clicked"].sum()) if len(mine) else 0
        weights = shipped.ranker[name], shipped.attraction[name]
        told: dict[str, Any] = {"shown": len(mine), "clicks": clicks}
        if clicks >= min_clicks:
            personal = name != "stranger"
            without, found = fit(mine, personal, False), fit(mine, personal, True)
            told["gain"] = 2 * (found.likelihood - without.likelihood)
            if told["gain"] > CREDIBLE:
                weights = found.ranker, found.attraction
        report["ranker"][name], report["attraction"][name] = weights
        report["phases"][name] = told
    return report


def fit(shown: pd.DataFrame, personal: bool, attracts: bool) -> Fit:
    """Logistic regression of `clicked`, with the score where `personal`, the attraction where `attracts`."""
    surfaces, code = np.unique(shown["surface"].to_numpy(str), return_inverse=True)
    columns = [np.log(shown["position"]), shown["score"] * personal, shown["attraction"] * attracts]
    x = np.column_stack([np.eye(len(surfaces))[code], *columns]).astype(np.float64)
    y = shown["clicked"].to_numpy(np.float64)

    def loss(weight: Doubles) -> tuple[float, Doubles]:
        z = x @ weight
        value = np.logaddexp(0.0, z).sum() - y @ z + PENALTY * weight @ weight
        return float(value), x.T @ (expit(z) - y) + 2 * PENALTY * weight

    free = [(None, None)] * (len(surfaces) + 1)
    best = minimize(
        loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", bounds=[*free, (0, None), (0, None)]
    )
    return Fit(float(best.x[-2]), float(best.x[-1]), -float(best.fun))


def told(report: Mapping[str, Any]) -> str:
    """One line: the weights of each phase.

    >>> told({"ranker": {"visit": 0.7}, "attraction": {"visit": 0.48}})
    'clicks: visit 0.70 ranker + 0.48 attraction'
    """
    weights = zip(report["ranker"].items(), report["attraction"].values(), strict=True)
    return "clicks: " + ", ".join(
        " + ".join(
            filter(
                None,
                (f"{name} {mine:.2f} ranker" if mine else name, f"{pull:.2f} attraction" if pull else ""),
            )
        )
        for (name, mine), pull in weights
    )
