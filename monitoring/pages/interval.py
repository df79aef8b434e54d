"""The guard's looks as a picture: the estimated CTR difference, its interval, the line that rolls back."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from monitoring.pages.phrases import when

WIDTH, HEIGHT, PAD = 720, 200, 44
REACH = 0.5  # differences beyond +-50 % are drawn at the edge


def draw(looks: Sequence[Mapping[str, Any]], margin: float) -> Markup:
    """Inline SVG; empty where no look has an interval yet. `margin`: relative drop that rolls back."""
    known = [look for look in looks if look.get("lower") is not None and look.get("upper") is not None]
    if not known:
        return Markup("")
    known = known * 2 if len(known) == 1 else known  # a single look is a level line
    reach = max(margin * 2, *(min(abs(look[edge]), REACH) for look in known for edge in ("lower", "upper")))
    step = (WIDTH - 2 * PAD) / max(len(known) - 1, 1)

    def y(value: float) -> float:
        inside = max(-reach, min(reach, value))
        return round(HEIGHT / 2 - inside / reach * (HEIGHT / 2 - PAD / 2), 1)

    def line(name: str) -> list[str]:
        return [f"{PAD + i * step:.1f},{y(look[name])}" for i, look in enumerate(known)]

    band = " ".join([*line("upper"), *reversed(line("lower"))])
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="CTR difference and its interval">'
        '<polygon class="band" points="{band}"/><polyline class="estimate" points="{estimate}"/>'
        '<line class="zero" x1="{p}" x2="{r}" y1="{zero}" y2="{zero}"/>'
        '<line class="margin" x1="{p}" x2="{r}" y1="{drop}" y2="{drop}"/>'
        '<text x="{p}" y="{drop}" dy="-3">-{margin:.0%}: rolled back when all of the band is below</text>'
        '<text x="2" y="{top}">{reach:+.0%}</text><text x="2" y="{zero}" dy="4">0</text>'
        '<text x="{p}" y="{foot}">{began}</text><text x="{r}" y="{foot}" text-anchor="end">{ended}</text>'
        "</svg>"
    ).format(
        w=WIDTH,
        h=HEIGHT,
        p=PAD,
        r=WIDTH - PAD,
        band=band,
        estimate=" ".join(line("estimate")),
        zero=y(0.0),
        drop=y(-margin),
        margin=margin,
        reach=reach,
        top=y(reach) + 4,
        foot=HEIGHT - 2,
        began=_when(known[0]),
        ended=_when(known[-1]),
    )


def _when(look: Mapping[str, Any]) -> str:
    return when(look["at_us"]) if "at_us" in look else ""
