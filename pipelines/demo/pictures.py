"""A picture of a product, drawn from what its catalogue line says: leaf, colour and style.

The same line, the same picture; a product of another shop is a plain box in a colour of its own.
"""

import zlib
from pathlib import Path

import yaml

from pipelines.simulate.departments import STYLES

_DRAWN = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
COLOURS, GROUNDS, SHAPES, LEAVES = (_DRAWN[name] for name in ("colours", "grounds", "shapes", "leaves"))
OTHER = "box"
DARKER = 0.68
SIZES = {
    "small": 0.8,
    "18 cm": 0.8,
    "compact": 0.82,
    "travel size": 0.8,
    "XS": 0.82,
    "S": 0.88,
    "single": 0.85,
}


def picture(title: str, category_path: str | None) -> str:
    """SVG, 100 x 100, for example of "Kelmora rustic cast iron frying pan, terracotta, 28 cm"."""
    name, *rest = title.split(", ")
    leaf = (category_path or "").rsplit("/", 1)[-1]
    colours = list(COLOURS)
    colour = rest[0] if rest and rest[0] in COLOURS else colours[zlib.crc32(title.encode()) % len(colours)]
    style = next((one.name for one in STYLES if any(word in name for word in one.adjectives)), STYLES[0].name)
    main = COLOURS[colour]
    shape = SHAPES[LEAVES.get(leaf, OTHER)].replace('"C"', f'"{main}"').replace('"D"', f'"{darker(main)}"')
    scale = SIZES.get(rest[-1], 1.0) if rest else 1.0
    shift = round(50 * (1 - scale), 2)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 -10 120 120">'
        f'<rect x="-10" y="-10" width="120" height="120" fill="{GROUNDS[style]}"/>'
        f'<g transform="translate({shift} {shift}) scale({scale})">{shape}</g></svg>'
    )


def darker(colour: str) -> str:
    """
    >>> darker("#ffffff")
    '#adadad'
    """
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{int(part * DARKER):02x}" for part in parts)
