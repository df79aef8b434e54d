"""Every simulated product has a picture: of its kind, its colour and its style, always the same."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from pipelines.demo.pictures import COLOURS, GROUNDS, LEAVES, SHAPES, picture
from pipelines.simulate.departments import DEPARTMENTS, STYLES


def test_every_leaf_colour_and_style_of_the_shop_is_drawn() -> None:
    assert set(LEAVES) == {leaf.name for one in DEPARTMENTS for leaf in one.leaves}
    assert set(LEAVES.values()) == set(SHAPES)
    assert set(COLOURS) == {colour for style in STYLES for colour in style.colours}
    assert set(GROUNDS) == {style.name for style in STYLES}
    for shape in SHAPES.values():
        ElementTree.fromstring(f"<g>{shape}</g>")


def test_leaf_colour_style_and_size_each_change_the_picture() -> None:
    drawn = {
        picture(title, f"Home/Kitchen/{leaf}")
        for title in (
            "Kelmora rustic cast iron frying pan, terracotta, 28 cm",
            "Kelmora rustic cast iron frying pan, cream, 28 cm",
            "Kelmora minimal cast iron frying pan, cream, 28 cm",
            "Kelmora minimal cast iron frying pan, cream, 18 cm",
        )
        for leaf in ("Pans", "Knives")
    }
    assert len(drawn) == 8
    assert COLOURS["terracotta"] in picture(
        "Kelmora rustic enamel wok, terracotta, 18 cm", "Home/Kitchen/Pans"
    )


@given(title=st.text(), path=st.none() | st.text())
def test_any_line_of_a_catalogue_is_a_safe_picture(title: str, path: str | None) -> None:
    drawn = picture(title, path)
    assert drawn == picture(title, path)
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert "<script" not in drawn
