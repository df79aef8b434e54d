"""How an experiment stands, out of the logs: text of 80 columns, JSON with a picture, a page."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from redis import Redis

from feature_repo.clock import instant
from feature_repo.params import load
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.tail import Exposure, Tail
from monitoring.trials import forest_chart
from monitoring.trials.outcomes import Outcomes, of_flag, of_holdout
from monitoring.trials.verdicts import Line, Results, Trials, judge
from serving.flags.flag_document import HOLDOUT_KEY, Flags
from serving.release.router import RouterParams

MEANING = {
    "better": "the difference is claimed",
    "worse": "the difference is claimed",
    "open": "nothing is claimed yet",
    "early": "too few visitors did it to say anything",
    "void": "visitors do not split as asked: nothing here is to be believed",
}


@dataclass(frozen=True)
class Readout:
    """Results of one experiment and what they are of; `metric` is the one that decides."""

    key: str
    metric: str
    state: str
    results: Results
    first: int  # arrival of the first list of the experiment that the logs hold, us; 0: of none
    last: int
    params: Trials

    def head(self) -> list[str]:
        """The metric that decides."""
        return self._top() + self._table([one for one in self.results.lines if one.metric == self.metric])

    def lines(self) -> list[str]:
        """All metrics."""
        found = self._top() + self._table(self.results.lines)
        held = sorted({line.verdict for line in self.results.lines})
        found += [f"{verdict}: {MEANING[verdict]}" for verdict in held]
        found.append(
            f"intervals: {1 - self.params.alpha:.0%}, valid at all looks; claims: e-BH over "
            f"{len(self.results.lines)} comparisons"
        )
        return [line[:80] for line in found]

    def told(self) -> dict[str, Any]:
        """For JSON; `picture` is SVG."""
        told = {"key": self.key, "metric": self.metric, "state": self.state, "from_us": self.first}
        told |= {"until_us": self.last, **self.results.told()}
        return told | {"picture": str(forest_chart.draw(self.results.lines))}

    def page(self) -> str:
        """One HTML page without anything from elsewhere."""
        whole = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>{}</title>'
            '<body style="font-family: sans-serif; max-width: 60rem; margin: 2rem auto">'
            "<h1>{}</h1>{}<pre>{}</pre></body></html>\n"
        )
        told = "\n".join(self.lines())
        return str(Markup(whole).format(self.key, self.key, forest_chart.draw(self.results.lines), told))

    def _top(self) -> list[str]:
        counts = ", ".join(f"{name} {many:,}" for name, many in self.results.visitors.items())
        span = f"{_when(self.first)} to {_when(self.last)}" if self.first else "no list of it is in the logs"
        found = [f"{self.key}: {self.state}", f"logs: {span}", f"visitors: {counts}"[:80]]
        if self.results.void:
            found.append(
                f"SPLIT: not as asked, evidence {self.results.mismatch:,.0f} : 1; look for the cause"
            )
        for many, told in (
            (self.results.suspects, "left out: they click more than people do"),
            (self.results.crossed, "were seen in two variants, and count in the first"),
        ):
            found += [f"{many:,} visitors {told}"] if many else []
        return found

    def _table(self, lines: Any) -> list[str]:
        rows = [f"{'metric':<20} {'variant':<14} {'value':>9} {'change':>8}  {'interval':<18} says"]
        return rows + [_row(line) for line in lines]


def of(redis: Redis, flags: Flags, key: str, params: Trials) -> Readout:
    """What the logs say of the experiment `key`, or of the holdout. Raises FlagsError where there is none."""
    which: Callable[[Exposure], str | None]
    outcomes = Outcomes(load("feedback", FeedbackParams))
    if key == HOLDOUT_KEY:
        share = load("router", RouterParams).holdout_share
        shares = {HOLDOUT_KEY: share, "personalised": 1 - share}
        metric, effect, state, which = "ctr", 0.05, f"{share:.1%} of all shoppers, always", of_holdout
    else:
        flag = flags.flag(key)
        shares, metric, effect, which = flag.shares, flag.metric, flag.effect, of_flag(flag)
        state = f"running at {flag.ramp:g} %" if flag.running else "stopped" if flag.since else "not started"
        state += f" since {_when(flag.started_us)}" if flag.running else ""
    Tail(redis).feed(outcomes)
    people = outcomes.people(which, list(shares))
    results = judge(people, shares, effect, params)
    return Readout(key, metric, state, results, outcomes.first, outcomes.last, params)


def _row(line: Line) -> str:
    value = f"{line.value:.2f}" if line.metric in ("revenue_per_visitor", "session_length") else ""
    head = f"{line.metric.replace('_', ' '):<20} {line.variant[:14]:<14} {value or f'{line.value:.2%}':>9}"
    if line.verdict == "early":
        return f"{head} {'':>8}  {'':<18} early"
    bounds = f"{line.lower:+.1%} to {line.upper:+.1%}"
    return f"{head} {line.estimate:>+8.1%}  {bounds:<18} {line.verdict}"


def _when(us: int) -> str:
    return f"{instant(us):%Y-%m-%d %H:%M}"
