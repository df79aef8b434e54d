"""Where an answer stands: the page that asked, and how far the visit had come. Answers are compared by it.

Most of an answer's columns follow from its place: at the start of a visit there is no contact to have an
affinity to, and a product page brings one. Which places are asked is the storefront's choice, not drift, so
the reference is weighted to the live mix of places.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.assemble.matrix import Doubles

PAGES = {"pdp_fbt": 1, "similar_items": 1, "category_sort": 2}  # a product's; a list that the storefront made
MOST = 4  # views and pages beyond are one place


@dataclass(frozen=True)
class Sample:
    """Answers that are compared: `rows` are their candidates, in order of `answer`, 0..n-1 (rows,).

    weight (n,) sums to 1 · place, visit int (n,), codes from 0
    """

    rows: pd.DataFrame
    answer: npt.NDArray[np.int64]
    weight: Doubles
    place: npt.NDArray[np.int64]
    visit: npt.NDArray[np.int64]

    def resampled(self, times: int, rng: np.random.Generator) -> Doubles:
        """(times, n) weights of a Bayesian bootstrap by visit: each place keeps its weight."""
        drawn = rng.exponential(size=(times, self.visit.max() + 1))[:, self.visit] * self.weight
        for place in np.unique(self.place):
            here = self.place == place
            drawn[:, here] *= self.weight[here].sum() / drawn[:, here].sum(axis=1, keepdims=True)
        return drawn


def alike(reference: pd.DataFrame, live: pd.DataFrame, least: int) -> tuple[Sample, Sample, float]:
    """Both samples at places where each has `least` answers, equally mixed; share of live answers left out.

    Frames as distances.read_served gives them. Raises ValueError where no place is in both.
    """
    told = [_answers(frame) for frame in (reference, live)]
    counts = [answers["place"].value_counts() for answers in told]
    shared = sorted(set.intersection(*(set(count.index[count >= least]) for count in counts)))
    if not shared:
        raise ValueError("no place of a visit has enough answers in both samples")
    kept = [answers[answers["place"].isin(shared)] for answers in told]
    mix = kept[1]["place"].value_counts(normalize=True)
    samples = [
        _sample(frame, answers, shared, mix) for frame, answers in zip((reference, live), kept, strict=True)
    ]
    return samples[0], samples[1], 1.0 - len(kept[1]) / len(told[1])


def _answers(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per answer, index request_id: place and visit."""
    first = rows.drop_duplicates("request_id").set_index("request_id")
    page = first["surface"].map(PAGES).fillna(0).astype(int)
    steps = [first[name].fillna(0).clip(0, MOST).astype(int) for name in ("session_views", "session_pages")]
    place = (page * 10 + steps[0]) * 10 + steps[1]
    visit = first["session_id"].fillna(first.index.to_series())
    return pd.DataFrame({"place": place, "visit": visit})


def _sample(rows: pd.DataFrame, answers: pd.DataFrame, shared: list[int], mix: pd.Series) -> Sample:
    number = pd.Series(np.arange(len(answers)), answers.index)
    held = rows[rows["request_id"].isin(answers.index)]
    here = answers["place"].map(answers["place"].value_counts())
    return Sample(
        rows=held,
        answer=held["request_id"].map(number).to_numpy(np.int64),
        weight=(answers["place"].map(mix) / here).to_numpy(float),
        place=np.searchsorted(shared, answers["place"]),
        visit=pd.factorize(answers["visit"])[0],
    )
