"""How popular and how uneven the lists are, beside the champion's."""

from pipelines.gates.bar import Check, Evaluation, GateParams


def spread(
    candidate: Evaluation, params: GateParams, champion: Evaluation | None = None
) -> tuple[Check, ...]:
    """Popularity and inequality of what is listed: not much above the champion's on the same questions.

    On other questions, and where there is no champion, both are told alone: strangers are shown the same
    things, so how many of them a week had moves either more than a release does.
    """
    before = champion.spread if champion else {}
    same = champion is not None and champion.identity == candidate.identity
    step = "`diversify` in params.yaml: more of tail_share or trade_off"
    checks = []
    for name, title, ceiling, factor, more in (
        ("arp", "arp over bestsellers'", params.max_arp, 1 + params.arp_tolerance, 0.0),
        ("gini", "gini", params.max_gini, 1.0, params.gini_tolerance),
    ):
        limit, because = ceiling, "the ceiling; no champion to compare with"
        if name in before:
            limit, because = before[name] * factor + more, f"champion's {before[name]:.3f} and the tolerance"
            because += "" if same else ", of other questions"
        if name in candidate.spread:
            value = candidate.spread[name]
            checks.append(
                Check(title, value, limit, because, most=True, judged=same and name in before, step=step)
            )
    return tuple(checks)
