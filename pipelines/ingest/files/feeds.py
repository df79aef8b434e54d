"""Product feeds of Google Merchant Center, as text (TSV, CSV) or XML (RSS 2.0, Atom), as columns of text.

XML is read without a document type: entities, and with them every reference to another file, are refused.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from xml.parsers import expat

import pyarrow as pa

from feature_repo.errors import DataError, shorten
from pipelines.ingest.files.delimited import read_delimited
from pipelines.ingest.files.exports import Cells, kind_of_file, text_of

_MADE = ("currency of the price", "stock by availability", "tags of the labels")
_LABELS = tuple(f"custom_label_{number}" for number in range(5))
FEED: Mapping[str, str] = {
    **{name: name for name in ("title", "description", "brand", "price", "gtin")},
    "item_id": "id",
    "category_path": "product_type",
    "image_path": "image_link",
    "url": "link",
    "currency": _MADE[0],
    "stock": _MADE[1],
    "tags": _MADE[2],
}
"""Field of the catalogue -> attribute of the product data specification."""
_PRODUCTS = ("item", "entry")  # of RSS and of Atom
_PRICE = re.compile(
    r"\s*(?P<before>[A-Za-z]{3})?\s*(?P<amount>[+-]?\d[\d.,' ]*?)\s*(?P<after>[A-Za-z]{3})?\s*"
)
_LONG = 64  # characters; no price is
_SOLD_OUT = ("out_of_stock", "out of stock")


def read_feed(path: Path, wanted: list[str], delimiter: str | None, encoding: str) -> Cells:
    """The wanted attributes of each product, null where the feed has none; `id` must be there.

    `12.99 EUR` is parted into price and currency; stock is 0 where the availability is out_of_stock,
    the custom labels are the tags, between bars.
    Raises DataError for a file that is no feed.
    """
    names = list(dict.fromkeys(name for name in (*wanted, "availability", *_LABELS) if name not in _MADE))
    if kind_of_file(path) == "feed":
        found = _of_xml(path, names, encoding)
    else:
        found = _of_text(path, names, delimiter, encoding)
    columns = dict(zip(names, (found.table[str(at)].to_pylist() for at in range(len(names))), strict=True))
    prices = [_parted(text) for text in columns.get("price", [])]
    columns["price"], columns[_MADE[0]] = ([price[at] for price in prices] for at in (0, 1))
    columns[_MADE[1]] = [
        "0" if (t or "").strip().lower() in _SOLD_OUT else None for t in columns["availability"]
    ]
    columns[_MADE[2]] = [
        "|".join(filter(None, words)) or None for words in zip(*map(columns.get, _LABELS), strict=True)
    ]
    columns["product_type"] = [_path(text) for text in columns.get("product_type", [])]
    made = {str(at): pa.array(columns[name], pa.string()) for at, name in enumerate(wanted)}
    places = ("source_row", "line", "unread_line", "unread_why")
    return Cells(pa.table(made | {name: found.table[name] for name in places}), found.told)


def _of_text(path: Path, names: list[str], delimiter: str | None, encoding: str) -> Cells:
    """Attributes may be written with blanks: `image link`."""
    spaced = [name.replace("_", " ") for name in names]
    both = list(dict.fromkeys((*names, *spaced)))
    cells = read_delimited(path, both, delimiter, encoding, needed=("id",))
    table = cells.table
    for at, name in enumerate(names):
        other = table[str(both.index(spaced[at]))]
        if table[str(at)].null_count == table.num_rows and spaced[at] != name:
            table = table.set_column(table.column_names.index(str(at)), str(at), other)
    return Cells(table, cells.told)


def _of_xml(path: Path, names: list[str], encoding: str) -> Cells:
    products = _products(path, text_of(path, encoding))
    if products and not any("id" in product for _, product in products):
        there = ", ".join(dict.fromkeys(name for _, product in products for name in product))
        problem = f"no product has an id; attributes are {shorten(there, 300)}"
        raise DataError(path, problem, rows=len(products), next_step="export it as a product feed")
    texts = {
        str(at): pa.array([product.get(name) or None for _, product in products], pa.string())
        for at, name in enumerate(names)
    }
    places = {
        "source_row": pa.array(range(1, len(products) + 1), pa.int64()),
        "line": pa.array([line for line, _ in products], pa.int64()),
    }
    lost = {name: pa.nulls(len(products), pa.string()) for name in ("unread_line", "unread_why")}
    return Cells(pa.table(texts | places | lost))


def _products(path: Path, content: bytes) -> list[tuple[int, dict[str, str]]]:
    """(line, attribute: text) of each product; of an attribute that is repeated, the first."""
    products: list[tuple[int, dict[str, str]]] = []
    place: list[str] = []  # names from the root to here
    texts: list[str] = []
    of_google: dict[str, bool] = {}
    parser = expat.ParserCreate("utf-8", " ")

    def begin(name: str, _: dict[str, str]) -> None:
        place.append(name)
        texts.clear()
        if _local(name) in _PRODUCTS:
            products.append((parser.CurrentLineNumber, {}))
            of_google.clear()

    def end(name: str) -> None:
        place.pop()
        if place and products and _local(place[-1]) in _PRODUCTS:
            local, google = _local(name), "google" in name
            # g:title is the product's; title alone may be the page's.
            if local not in of_google or (google and not of_google[local]):
                products[-1][1][local], of_google[local] = "".join(texts).strip(), google
        texts.clear()

    def refuse(*_: object) -> None:
        problem = f"line {parser.CurrentLineNumber}: a document type; allowed: XML without one"
        raise DataError(path, problem, next_step="export the feed without <!DOCTYPE ...>")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = texts.append, refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        problem = f"line {error.lineno}: not XML: {expat.ErrorString(error.code)}"
        raise DataError(path, problem, next_step="export it again") from error
    return products


def _local(name: str) -> str:
    """Name without its namespace."""
    return name.rpartition(" ")[2]


def _path(text: str | None) -> str | None:
    """`Home > Mugs` with the separator of our categories."""
    return text and "/".join(step for part in text.split(">") if (step := part.strip()))


def _parted(text: str | None) -> tuple[str | None, str | None]:
    """(amount, currency); what is no price stays whole.

    >>> _parted("1,299.00 EUR"), _parted("cheap")
    (('1,299.00', 'EUR'), ('cheap', None))
    """
    match = _PRICE.fullmatch(text or "") if len(text or "") < _LONG else None
    return (match["amount"], match["before"] or match["after"]) if match else (text, None)
