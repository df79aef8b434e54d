"""What a ranker is asked for: section `ranker` of params.yaml, and LightGBM's names for it."""

from dataclasses import dataclass

from feature_repo.errors import ParamsError
from feature_repo.places import SUFFIXES

OBJECTIVES = ("lambdarank", "rank_xendcg")


@dataclass(frozen=True)
class MlpParams:
    """What only kind mlp reads."""

    bins: int  # quantiles of a column
    hidden: tuple[int, ...]  # widths of the layers
    epochs: int  # the best by NDCG@12 on the validation span
    lists: int  # per step
    learning_rate: float  # falls as a cosine
    weight_decay: float


@dataclass(frozen=True)
class RankerParams:
    """Section `ranker` of params.yaml."""

    kind: str  # one of SUFFIXES
    objective: str  # one of OBJECTIVES
    gains: tuple[float, ...]  # what no contact, a view, a cart and an order are worth; of lambdarank alone
    seed: int
    threads: int
    max_rounds: int
    patience: int  # rounds without a better NDCG@12 on the validation span
    learning_rate: float
    num_leaves: int
    min_data_in_leaf: int
    feature_fraction: float
    lambda_l2: float
    truncation: int  # pairs are weighed down to this place of the list
    k: int  # NDCG@k
    mlp: MlpParams

    def __post_init__(self) -> None:
        if self.kind not in SUFFIXES:
            raise ParamsError(
                f"ranker.kind: {self.kind!r} is not allowed; allowed: {', '.join(SUFFIXES)}. Next: choose one"
            )
        if self.objective not in OBJECTIVES:
            allowed = ", ".join(OBJECTIVES)
            raise ParamsError(f"ranker.objective: {self.objective!r} is not allowed; allowed: {allowed}")
        if len(self.gains) != 4 or self.gains[0] != 0 or sorted(self.gains) != list(self.gains):
            raise ParamsError(
                f"ranker.gains: {list(self.gains)} is not allowed; allowed: four numbers, the first 0, none "
                "less than the one before. Next: say what no contact, a view, a cart and an order are worth"
            )


def settings(params: RankerParams) -> dict[str, object]:
    """LightGBM's parameters, the same trees for the same rows."""
    return {
        "objective": params.objective,
        "seed": params.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": params.threads,
        "learning_rate": params.learning_rate,
        "num_leaves": params.num_leaves,
        "min_data_in_leaf": params.min_data_in_leaf,
        "feature_fraction": params.feature_fraction,
        "lambda_l2": params.lambda_l2,
        "lambdarank_truncation_level": params.truncation,
        "label_gain": list(params.gains),
        "verbose": -1,
    }
