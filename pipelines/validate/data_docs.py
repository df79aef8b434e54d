"""Great Expectations' Data Docs as pages that need no network.

GX's pages load styles, scripts and a counting picture from eight hosts. Whoever opened one would tell them
so, and without a network would see bare text. Here every such reference is cut out and one small style
sheet put in. And they carry the clock and random ids, which go as well.
"""

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path

from pipelines.validate.findings import TableResult

_SCRIPT = re.compile(r"<script\b[^>]*>.*?</script>", re.S)
_REMOTE = re.compile(r"<(?:link|img)\b[^>]*(?:href|src)=\"https?://[^>]*>", re.S)
# What GX makes anew in every run: ids of its scripts' anchors, and the clock.
_ANCHOR = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CLOCK = re.compile(r"\b20\d{6}T\d{6}\.\d{6}Z")
_STYLE = f"<style>\n{Path(__file__).with_suffix('.css').read_text()}</style>"


def finish(folder: Path, results: Mapping[str, TableResult]) -> None:
    """Cut other hosts out of the pages that GX has built and write the index; GX's own needs scripts."""
    for page in folder.rglob("*.html"):
        page.write_text(repeatable(local_only(page.read_text())))
    lines = []
    for name, result in results.items():
        (page,) = (folder / "validations" / name).rglob("*.html")
        colour, word = ("success", "holds") if result.success else ("danger", "failed")
        failures = "".join(f"<br>{escape(failure)}" for failure in result.failures(name))
        lines.append(
            f'<tr><td><a href="{page.relative_to(folder)}">{escape(name)}</a></td>'
            f'<td class="text-{colour}">{word}</td><td>{result.held} of {len(result.findings)}{failures}</td>'
            f"<td>{result.rows:,} of {result.total:,}</td></tr>"
        )
    head = "<tr><th>suite</th><th></th><th>expectations that hold</th><th>rows checked</th></tr>"
    title = f"Expectations: {escape(folder.name)}"
    (folder / "index.html").write_text(
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>{_STYLE}</head>'
        f"<body><h1>{title}</h1><table>{head}{''.join(lines)}</table></body></html>\n"
    )


def local_only(html: str) -> str:
    """The page without scripts, remote styles and remote pictures; links that a reader may click stay.

    >>> local_only('<head></head><img src="https://a.example/x.png"><a href="https://b.example">b</a>').split("</style>")[1]
    '</head><a href="https://b.example">b</a>'
    """
    return _REMOTE.sub("", _SCRIPT.sub("", html)).replace("</head>", f"{_STYLE}</head>", 1)


def repeatable(html: str) -> str:
    """The page without what differs from run to run: the same data gives the same bytes.

    >>> repeatable('<p id="b-55a0a4a5-9e88-4ee7-b29c-5a724bf16b81">20261127T075234.212006Z</p>')
    '<p id="b-0"></p>'
    """
    known: dict[str, int] = {}
    numbered = _ANCHOR.sub(lambda found: str(known.setdefault(found[0], len(known))), html)
    return _CLOCK.sub("", numbered)
