"""Who gets which variant: a pure function of the shopper's id, the document and where the list is asked from.

Three draws of one hash (serving/release/router.py), each independent of the others: where the shopper stands
in the layer, whether the ramp has reached him, which variant is his. So a ramp only adds people, nobody's
variant changes as it grows, and flags of one layer never meet. The holdout is in no experiment.

Names are OpenFeature's: a flag is evaluated to a variant for a reason (SPLIT, DEFAULT, DISABLED).
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from serving.flags.flag_document import Change, Flag, Flags, Variant
from serving.release.router import position
from serving.types import Request

SPLIT, DEFAULT, DISABLED = "SPLIT", "DEFAULT", "DISABLED"
LAYER, RAMP, VARIANT = b"endcap-layer", b"endcap-ramp", b"endcap-variant"


class Evaluation(NamedTuple):
    """One flag for one shopper; of a reason other than SPLIT the variant is the control, and no exposure."""

    flag_key: str
    variant: Variant
    reason: str

    def told(self) -> dict[str, Any]:
        """As the answer has it."""
        value = {} if self.variant.do.value is None else {"value": self.variant.do.value}
        return {"flag_key": self.flag_key, "variant": self.variant.name, "reason": self.reason} | value


class Treatment(NamedTuple):
    """The experiments that a shopper's list is part of, by flag, and what they ask of it together."""

    version: int = 0
    evaluations: tuple[Evaluation, ...] = ()
    asked: Change = Change.model_construct()

    @property
    def variants(self) -> dict[str, str]:
        """Flag -> variant, as exposures have it."""
        return {one.flag_key: one.variant.name for one in self.evaluations}

    @property
    def moves(self) -> bool:
        """Whether the list is made otherwise than without any experiment."""
        return self.asked != UNTREATED.asked


UNTREATED = Treatment()


def evaluate(flags: Flags, flag: Flag, request: Request, unit: str | None, held_out: bool) -> Evaluation:
    """The variant of the shopper `unit`, None for nobody; `held_out`: of the holdout."""
    if not flag.running:
        return Evaluation(flag.key, flag.variants[0], DISABLED)
    inside = unit is not None and not held_out and _meant(flag, request) and _drawn(flags, flag, unit)
    if not inside:
        return Evaluation(flag.key, flag.variants[0], DEFAULT)
    return Evaluation(flag.key, chosen(flag, str(unit)), SPLIT)


def treatment(flags: Flags, request: Request, unit: str | None, held_out: bool) -> Treatment:
    """All that runs for this list; UNTREATED where nothing does."""
    if unit is None or held_out:
        return UNTREATED
    found = [evaluate(flags, flag, request, unit, False) for flag in flags.flags if flag.running]
    inside = tuple(one for one in found if one.reason == SPLIT)
    if not inside:
        return UNTREATED
    return Treatment(flags.version or 0, inside, _together(one.variant.do for one in inside))


def chosen(flag: Flag, unit: str) -> Variant:
    """The variant by weight.

    >>> one = Flag(key="f", salt="s", variants=(Variant(name="a"), Variant(name="b", weight=3.0)))
    >>> [chosen(one, unit).name for unit in ("U1", "U2", "U3", "U4")]
    ['b', 'b', 'b', 'b']
    """
    at = position(unit, flag.salt, VARIANT) * sum(one.weight for one in flag.variants)
    for one in flag.variants:
        at -= one.weight
        if at < 0:
            return one
    return flag.variants[-1]


def _drawn(flags: Flags, flag: Flag, unit: str) -> bool:
    stands = 100 * position(unit, flags.salt_of(flag), LAYER)
    within = flag.slice.begin <= stands < flag.slice.end
    return within and 100 * position(unit, flag.salt, RAMP) < flag.ramp


def _meant(flag: Flag, request: Request) -> bool:
    audience, context = flag.audience, request.context
    country = (context.country or "").lower()
    return (
        (audience.surface is None or request.surface in audience.surface)
        and (audience.device is None or context.device in audience.device)
        and (audience.country is None or country in (one.lower() for one in audience.country))
        and audience.known in (None, request.user_id is not None)
    )


def _together(changes: Iterable[Change]) -> Change:
    """No two of one shopper set the same: the document is refused that has such."""
    asked: Mapping[str, Any] = {
        name: value
        for one in changes
        for name in ("rule_set", "trade_off", "order")
        if (value := getattr(one, name)) is not None
    }
    return Change.model_construct(**asked) if asked else UNTREATED.asked
