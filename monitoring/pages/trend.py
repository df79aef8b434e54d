"""CTR by day as a picture: a line per arm with the interval of each day, for one surface."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from markupsafe import Markup
from scipy.special import ndtri

from monitoring.experiment.sequential import ArmStatistics

WIDTH, HEIGHT, LEFT, FOOT = 360, 170, 40, 20
Z = float(-ndtri(0.025))  # 95 %, for one look at one day

Days = Mapping[int, ArmStatistics]  # by days since 1970


def bounds(told: ArmStatistics) -> tuple[float, float] | None:
    """95 % interval of a CTR, from the variance between visitors (delta method); None below two of them.

    >>> many = sum((ArmStatistics.of(c, 10) for c in (0, 1, 2, 1)), ArmStatistics())
    >>> [round(float(edge), 3) for edge in bounds(many)]
    [0.02, 0.18]
    """
    if told.shoppers < 2:
        return None
    error = Z * (float(told.shopper_variance) / told.shoppers) ** 0.5
    return max(float(told.ctr) - error, 0.0), min(float(told.ctr) + error, 1.0)


def draw(arms: Mapping[str, Days]) -> Markup:
    """Inline SVG; a day without a visitor of an arm breaks no line, a single day is a mark."""
    days = sorted({day for told in arms.values() for day in told})
    if not days:
        return Markup("")
    edges = [edge for told in arms.values() for one in told.values() for edge in bounds(one) or (one.ctr,)]
    top = max(*edges, 1e-4)
    span = max(days[-1] - days[0], 1)

    def x(day: int) -> float:
        return round(LEFT + (day - days[0] + (days[-1] == days[0]) / 2) / span * (WIDTH - LEFT - 10), 1)

    def y(value: float) -> float:
        return round(HEIGHT - FOOT - value / top * (HEIGHT - FOOT - 10), 1)

    drawn = [part for arm, told in arms.items() for part in _arm(arm, told, x, y)]
    frame = Markup(
        '<line class="axis" x1="{l}" x2="{w}" y1="{b}" y2="{b}"/><text x="2" y="14">{top:.1%}</text>'
        '<text x="2" y="{b}">0</text><text x="{l}" y="{f}">{first}</text>'
        '<text x="{w}" y="{f}" text-anchor="end">{last}</text>'
    )
    ends = {"first": _date(days[0]), "last": _date(days[-1])}
    frame = frame.format(l=LEFT, w=WIDTH - 4, b=HEIGHT - FOOT, f=HEIGHT - 4, top=top, **ends)
    whole = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="CTR by day">{}</svg>')
    return whole.format(WIDTH, HEIGHT, frame + Markup("").join(drawn))


def _arm(arm: str, told: Days, x: Callable[[int], float], y: Callable[[float], float]) -> Sequence[Markup]:
    days = sorted(told)
    known = [(day, found) for day in days if (found := bounds(told[day]))]
    bars = [
        Markup('<line class="span {}" x1="{x}" x2="{x}" y1="{}" y2="{}"/>').format(
            arm, y(low), y(high), x=x(day)
        )
        for day, (low, high) in known
    ]
    at = [(x(day), y(float(told[day].ctr))) for day in days]
    line = " ".join(f"{left},{height}" for left, height in at)
    marks = [Markup('<circle class="{}" cx="{}" cy="{}" r="2.5"/>').format(arm, *one) for one in at]
    return [*bars, Markup('<polyline class="line {}" points="{}"/>').format(arm, line), *marks]


def _date(day: int) -> str:
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day):%d %b %Y}"
