"""The guard's looks as a picture: the estimated CTR difference, its interval, the line that rolls back."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT, PAD = 720, 180, 28
REACH = 0.5  # differences beyond +-50 % are drawn at the edge


def draw(looks: Sequence[Mapping[str, Any]], margin: float) -> Markup:
    """Inline SVG; empty where no look has an interval yet. `margin`: relative drop that rolls back."""
    known = [look for look in looks if look.get("lower") is not None and look.get("upper") is not None]
    if not known:
        return Markup("")
    reach = max(margin * 2, *(min(abs(look[edge]), REACH) for look in known for edge in ("lower", "upper")))
    step = (WIDTH - 2 * PAD) / max(len(known) - 1, 1)

    def y(value: float) -> float:
        inside = max(-reach, min(reach, value))
        return round(HEIGHT / 2 - inside / reach * (HEIGHT / 2 - PAD / 2), 1)

    def line(name: str) -> list[str]:
        return [f"{PAD + i * step:.1f},{y(look[name])}" for i, look in enumerate(known)]

    band = " ".join([*line("upper"), *reversed(line("lower"))])
    return Markup(
        '<svg viewBox="0 0 {w} {h}" role="img" aria-label="CTR difference and its interval">'
        '<polygon class="band" points="{band}"/><polyline class="estimate" points="{estimate}"/>'
        '<line class="zero" x1="{p}" x2="{r}" y1="{zero}" y2="{zero}"/>'
        '<line class="margin" x1="{p}" x2="{r}" y1="{drop}" y2="{drop}"/>'
        '<text x="{p}" y="{drop}" dy="-3">-{margin:.0%}: rolled back when all of the band is below</text>'
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
    )
