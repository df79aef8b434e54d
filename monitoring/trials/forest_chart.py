"""Results as a picture: per metric and variant the difference from the control and its interval."""

from collections.abc import Callable, Sequence

from markupsafe import Markup

from monitoring.trials.verdicts import Line

WIDTH, ROW, LEFT, RIGHT, HEAD = 720, 22, 300, 90, 26
REACH = 0.5  # differences beyond +-50 % are drawn at the edge
COLOURS = {"better": "#3a7d44", "worse": "#b23a48"}
PLAIN = "#5c6b77"


def draw(lines: Sequence[Line]) -> Markup:
    """SVG on its own, a line of text and a bar each; what has no interval yet has no bar."""
    ends = [abs(edge) for line in lines for edge in (line.lower, line.upper) if abs(edge) < REACH]
    reach = min(max([*ends, 0.02]) * 1.1, REACH)
    middle, half = (LEFT + WIDTH - RIGHT) / 2, (WIDTH - RIGHT - LEFT) / 2
    height = HEAD + ROW * len(lines) + ROW

    def x(value: float) -> float:
        return round(middle + max(-reach, min(reach, value)) / reach * half, 1)

    rows = Markup("").join(_row(line, HEAD + ROW * at, x) for at, line in enumerate(lines))
    frame = Markup(
        '<line x1="{m}" x2="{m}" y1="{top}" y2="{foot}" stroke="#222"/>'
        '<text x="{l}" y="16">-{reach:.0%}</text><text x="{m}" y="16" text-anchor="middle">control</text>'
        '<text x="{r}" y="16" text-anchor="end">+{reach:.0%}</text>'
    ).format(m=middle, top=HEAD - 4, foot=height - ROW, l=LEFT, r=WIDTH - RIGHT, reach=reach)
    whole = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img" font-size="12" '
        'font-family="sans-serif" aria-label="differences from the control">{}</svg>'
    )
    return Markup(whole).format(WIDTH, height, frame + rows)


def _row(line: Line, top: int, x: Callable[[float], float]) -> Markup:
    middle, colour = top + ROW / 2, COLOURS.get(line.verdict, PLAIN)
    told = Markup('<text x="4" y="{}">{} {}</text><text x="{}" y="{}">{}</text>').format(
        middle + 4,
        line.metric.replace("_", " "),
        line.variant[:24],
        WIDTH - RIGHT + 8,
        middle + 4,
        line.verdict,
    )
    if line.upper == float("inf"):
        return told
    bar = Markup(
        '<line x1="{}" x2="{}" y1="{y}" y2="{y}" stroke="{c}" stroke-width="3"/>'
        '<circle cx="{}" cy="{y}" r="4" fill="{c}"/>'
    )
    return told + bar.format(x(line.lower), x(line.upper), x(line.estimate), y=middle, c=colour)
