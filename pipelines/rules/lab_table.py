"""The rule lab's report as tables for a person."""

from collections.abc import Mapping
from typing import Any

from feature_repo.terminal import console, table
from serving.rules.faults import Fault


def show(report: Mapping[str, Any]) -> None:
    """The report as tables for a person."""
    out = console()
    if not report["answers"]:
        out.print("no logged answer of this release: the service logs a share of them (serving.served_share)")
        return
    out.print(f"{report['answers']} logged answers; {report['unusable']} more are of other releases")
    if report["later"]:
        out.print(f"{report['later']} of them as if asked while most rules of the draft hold")
    out.print(
        f"made again by the rules that hold, {report['agreement'] or 0:.1%} of their slots are as shown"
    )
    out.print(f"the draft changes {report['displaced']} of {report['slots']} slots")
    for name in ("margin", "price", "products"):
        before, after = report[name]
        if before is not None and after is not None:
            out.print(
                f"  {name:<9} {before:>10,.3f} -> {after:,.3f}"
                if name != "products"
                else f"  {name:<9} {before:>10,} -> {after:,}"
            )
    if told := report["expected"]:
        for name, words in (("ctr", "expected CTR"), ("margin_per_impression", "x margin")):
            before, after = told[name]
            change, low, high = told[f"{name}_change"]
            out.print(f"  {words:<12} {before:.3%} -> {after:.3%}, {change:+.3%} ({low:+.3%} to {high:+.3%})")
        out.print(f"  {_came_true(report['reliability'])}")
    else:
        out.print("  no expected CTR: the release has no calibrated chance of a click")
    rules = table("rules", ["rule", "does", ">held", ">changed", ">slots", ">new", ">clicks", "gains most"])
    for one in report["rules"]:
        gains = one["gains"][0]["title"] if one["gains"] else "dead" if one["dead"] else ""
        rules.add_row(
            _shown(one["rule"], 16),
            one["action"],
            *(str(one[k]) for k in ("held", "changed", "displaced", "brought")),
            f"{one['expected']['ctr_change'][0]:+.3%}" if one["expected"] else "-",
            _shown(gains, 12),
        )
    out.print(rules)
    for name in ("gain", "lose"):
        products = table(f"products that {name} most", ["product", ">slots"])
        for one in report[name]:
            products.add_row(_shown(one["title"], 56), f"{one['slots']:+}")
        out.print(products)
    for surface, lists in report["short"].items():
        out.print(f"{surface}: {lists} lists have fewer products than were asked for")
    for fault in report["faults"]:
        out.print(Fault(**fault).line(), markup=False)


def _came_true(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return "too few of these answers have a known fate to say whether such chances come true"
    rate, low, high = told["clicked"]
    factors = ", ".join(f"{surface} x {factor:.2f}" for surface, factor in told["factor"].items())
    interval = f"{rate:.3%} ({low:.3%} to {high:.3%})"
    return f"as shown, the release expected {told['expected']:.3%} and {interval} came true; hence {factors}"


def _shown(text: str, width: int) -> str:
    """Of a terminal's width, without markup or control characters."""
    plain = "".join(c if c.isprintable() else " " for c in text).replace("[", "(").replace("]", ")")
    return plain if len(plain) <= width else plain[: width - 3] + "..."
