"""A verdict for the eye, one HTML file without scripts: every line, and a picture of the slices."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from feature_repo.picture import Figure
from pipelines.gates.bar import Check, Verdict

COLORS = {"passed": "#1b6ca8", "told": "#b8860b", "FAILED": "#c0392b"}
_STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:1.2rem auto;max-width:76rem;padding:0 1rem}
table{border-collapse:collapse;width:100%}img{max-width:100%}td.n{text-align:right;white-space:nowrap}
td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}"""


def write_page(
    path: Path, title: str, verdict: Verdict, notes: Sequence[str] = (), pictures: Sequence[bytes] = ()
) -> None:
    """`notes`: sentences below the heading; `pictures`: PNGs above that of the slices. Texts are escaped."""
    drawn, sliced = [*pictures], [check for check in verdict.checks if check.interval]
    drawn += [_slices(sliced)] if sliced else []
    failed = sum(not check.passed for check in verdict.checks)
    word, state = (f"FAILED by {failed}", "FAILED") if failed else ("passed", "passed")
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>",
        f"<p><b style='color:{COLORS[state]}'>{word}</b> of {len(verdict.checks)} lines, ",
        f"against {escape(verdict.against)}.",
        *(f"<p>{escape(note)}" for note in notes),
        "<table><tr><th>line<th>value<th>allowed<th>because<th><th>what to do",
        *map(_row, sorted(verdict.checks, key=lambda check: check.passed)),
        "</table>",
        *(f"<p><img alt='' src='data:image/png;base64,{base64.b64encode(png).decode()}'>" for png in drawn),
    ]
    path.write_text("".join(parts))


def _row(check: Check) -> str:
    limit = f"{'≤' if check.most else '≥'} {check.needed:.4g}"
    step = "" if check.state == "passed" else check.step
    return (
        f"<tr><td>{escape(check.name)}<td class=n>{check.value:.4g}<td class=n>{limit}"
        f"<td>{escape(check.because)}"
        f"<td style='color:{COLORS[check.state]}'>{check.state}<td>{escape(step)}"
    )


def _slices(checks: Sequence[Check]) -> bytes:
    """The interval of each slice's difference, and the margin that its lower end must not cross."""
    figure = Figure(figsize=(9, 0.36 * len(checks) + 1.3), layout="constrained")
    panel = figure.subplots()
    for at, check in enumerate(reversed(checks)):
        assert check.interval is not None
        low, high = check.interval
        panel.plot([low, high], [at, at], color=COLORS[check.state], linewidth=3, solid_capstyle="butt")
        panel.plot((low + high) / 2, at, "o", color=COLORS[check.state])
        panel.plot([check.needed] * 2, [at - 0.35, at + 0.35], color="#444", linewidth=1.5)
    panel.axvline(0, color="#bbb", linewidth=1, zorder=0)
    panel.set_yticks(range(len(checks)), [f"{check.name}  {check.state}" for check in reversed(checks)])
    panel.set_title("Difference, 95 % interval; black: as much worse as is allowed", loc="left", fontsize=10)
    panel.spines[["top", "right", "left"]].set_visible(False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110, metadata={"Software": None})
    return drawn.getvalue()
