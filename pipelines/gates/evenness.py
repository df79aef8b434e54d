"""How popular and how uneven the lists are, beside the champion's."""

from pipelines.gates.bar import Check, Evaluation, GateParams


def spread(
    candidate: Evaluation, params: GateParams, champion: Evaluation | None = None
) -> tuple[Check, ...]:
    """Popularity and inequality of what is listed: not much above the champion's; told where there is none.

    ARP is over that of bestsellers' lists on the same questions, so it can be compared with another week's.
    So can the Gini index where lists abound; few lists are uneven by themselves.
    """
    before = champion.spread if champion else {}
    usual = champion is not None and (
        champion.identity == candidate.identity or champion.reach == candidate.reach == 1
    )
    step = "`diversify` in params.yaml: more of tail_share or trade_off"
    checks = []
    for name, title, ceiling, factor, more in (
        ("arp", "arp over bestsellers'", params.max_arp, 1 + params.arp_tolerance, 0.0),
        ("gini", "gini", params.max_gini, 1.0, params.gini_tolerance),
    ):
        limit, because = ceiling, "the ceiling; no champion to compare with"
        if judged := usual and name in before:
            limit, because = before[name] * factor + more, f"champion's {before[name]:.3f} and the tolerance"
        if name in candidate.spread:
            value = candidate.spread[name]
            checks.append(Check(title, value, limit, because, most=True, judged=judged, step=step))
    return tuple(checks)
