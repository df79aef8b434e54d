"""A shop's experiments as one JSON document, and the check at the door.

    {"layers": [{"name": "ranking"}],
     "rule_sets": {"own-first": {"rules": [...]}},
     "flags": [{"key": "calm", "layer": "ranking", "slice": {"from": 0, "until": 50}, "ramp": 20,
                "audience": {"surface": ["homepage_hero"]}, "status": "off",
                "variants": [{"name": "control", "weight": 1},
                             {"name": "varied", "weight": 1, "do": {"trade_off": 0.4}}]}]}

The first variant is the control. docs/flags.md says what each part means.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from feature_repo.errors import EndcapError, shorten
from feature_repo.events import DEVICES, SURFACES
from serving.rules.document import Document, Strict, Texts
from serving.rules.faults import NAME, Fault, translated

MAX_BYTES, MAX_VALUE = 1 << 20, 4096
MAX_FLAGS, MAX_VARIANTS = 100, 12
METRICS = ("ctr", "add_to_cart_rate", "conversion", "revenue_per_visitor", "session_length")
KNOBS = ("rule_set", "trade_off", "order")  # what changes a list; a value changes none
HOLDOUT_KEY = "holdout"  # the name under which the holdout's own results stand

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=NAME)]
Why = Annotated[str, Field(max_length=500)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Layer(Strict):
    """Flags of one layer share its shoppers out among them; of two layers neither knows of the other."""

    name: Name
    salt: Annotated[str, Field(max_length=64)] = ""


class Slice(Strict):
    """From and until which percent of the layer's shoppers."""

    begin: Percent = Field(0.0, alias="from")
    end: Percent = Field(100.0, alias="until")

    @model_validator(mode="after")
    def _holds_somebody(self) -> Self:
        if self.begin >= self.end:
            raise _refused("`from` before `until`")
        return self


class Audience(Strict):
    """Whose lists; what is left out holds for all."""

    surface: tuple[Literal[SURFACES], ...] | None = Field(None, min_length=1)  # type: ignore[valid-type]
    device: tuple[Literal[DEVICES], ...] | None = Field(None, min_length=1)  # type: ignore[valid-type]
    country: Texts | None = None
    known: bool | None = None


class Change(Strict):
    """What a variant does to a list, and the value that it tells the storefront; nothing: as it is."""

    rule_set: Name | None = None
    trade_off: Annotated[float, Field(ge=0, le=1)] | None = None
    order: Literal["ranker", "blend", "bestsellers"] | None = None
    value: bool | int | float | str | dict[str, Any] | list[Any] | None = None

    @model_validator(mode="after")
    def _is_short(self) -> Self:
        if len(orjson.dumps(self.value)) > MAX_VALUE:
            raise _refused(f"a value of at most {MAX_VALUE} bytes as JSON")
        return self


class Variant(Strict):
    name: Name
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    do: Change = Change.model_construct()


class Flag(Strict):
    """`since` and `started_us` are written when it is started: the version and the moment."""

    key: Name
    why: Why = ""
    layer: Name | None = None  # None: a layer of its own
    slice: Slice = Slice.model_construct(begin=0.0, end=100.0)
    audience: Audience = Audience.model_construct()
    ramp: Percent = 100.0  # of the slice, who take part so far
    status: Literal["off", "running"] = "off"
    metric: Literal[METRICS] = "ctr"  # type: ignore[valid-type]
    effect: Annotated[float, Field(gt=0, le=10)] = 0.05  # relative; the smallest that is worth knowing
    variants: Annotated[tuple[Variant, ...], Field(max_length=MAX_VARIANTS)]
    salt: Annotated[str, Field(max_length=64)] = ""
    since: Annotated[int, Field(ge=0)] = 0
    started_us: Annotated[int, Field(ge=0)] = 0

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def knobs(self) -> set[str]:
        """What its variants change in a list."""
        return {knob for one in self.variants for knob in KNOBS if getattr(one.do, knob) is not None}

    @property
    def shares(self) -> dict[str, float]:
        """Variant -> its part of those who take part."""
        total = sum(one.weight for one in self.variants)
        return {one.name: one.weight / total for one in self.variants}


class Flags(Strict):
    """All experiments of a shop. `version`: the published one that it was made from, if it says."""

    version: Annotated[int, Field(ge=0, le=2**53)] | None = None
    layers: Annotated[tuple[Layer, ...], Field(max_length=MAX_FLAGS)] = ()
    rule_sets: dict[Name, Document] = Field(default_factory=dict)
    flags: Annotated[tuple[Flag, ...], Field(max_length=MAX_FLAGS)]

    def flag(self, key: str) -> Flag:
        """Raises FlagsError, naming those that there are."""
        for one in self.flags:
            if one.key == key:
                return one
        allowed = ", ".join(one.key for one in self.flags) or "none is published"
        raise FlagsError([Fault(key, "key", shorten(key), allowed, kind="flag")])

    def salt_of(self, flag: Flag) -> str:
        """Of its layer; of a layer of its own it is the flag's."""
        return next((one.salt for one in self.layers if one.name == flag.layer), flag.salt)


EMPTY = Flags(flags=())
KEYS: dict[Any, type[Strict]] = {"": Flags, "layers": Layer, "flags": Flag, "slice": Slice, "do": Change}
KEYS |= {"audience": Audience, "variants": Variant}


class FlagsError(EndcapError):
    """A document of experiments that is refused, with every fault that was found."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(faults)
        told = "; ".join(fault.line() for fault in faults)
        super().__init__(f"flags: {told}. Next: docs/flags.md has the fields; nothing was changed.")


def parse(text: bytes) -> Flags:
    """The document, checked in itself. Raises FlagsError with every fault, and nothing else."""
    if len(text) > MAX_BYTES:
        raise _of_file(f"{len(text)} bytes", f"at most {MAX_BYTES} bytes")
    try:
        raw = orjson.loads(text)
    except ValueError as error:
        raise _of_file(
            shorten(text[:40].decode(errors="replace")), f"one JSON object in UTF-8 ({error})"
        ) from None
    try:
        found = Flags.model_validate_json(text)
    except ValidationError as error:
        raise FlagsError(translated(error.errors(), raw, KEYS, "flags", "key")) from None
    if faults := list(_contradictions(found)):
        raise FlagsError(faults)
    return found


def render(flags: Flags, salts: bool = True) -> bytes:
    """As JSON; what says nothing is left out. Without `salts` it is fit for people: they are secret."""
    told = flags.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if not salts:
        for one in (*told.get("layers", ()), *told.get("flags", ())):
            one.pop("salt", None)
    return orjson.dumps({"flags": [], **told})


def _contradictions(flags: Flags) -> Iterator[Fault]:
    layers = {one.name for one in flags.layers}
    for name, named in (("layers", flags.layers), ("flags", flags.flags)):
        for key, many in Counter(one.name if isinstance(one, Layer) else one.key for one in named).items():
            if many > 1:
                yield Fault(key, name, shorten(key), "each name once", kind="flag")
    for flag in flags.flags:
        if flag.key == HOLDOUT_KEY:
            yield Fault(flag.key, "key", shorten(flag.key), "any other name: the holdout's", kind="flag")
        if flag.layer is not None and flag.layer not in layers:
            allowed = ", ".join(sorted(layers)) or "no layer is in `layers`"
            yield Fault(flag.key, "layer", shorten(flag.layer), allowed, kind="flag")
        names = [one.name for one in flag.variants]
        if len(names) < 2:
            yield Fault(flag.key, "variants", shorten(names), "two or more, the control first", kind="flag")
        if len(set(names)) < len(names):
            yield Fault(flag.key, "variants", shorten(names), "each name once", kind="flag")
        kinds = {type(one.do.value).__name__ for one in flag.variants if one.do.value is not None}
        if len(kinds) > 1:
            yield Fault(flag.key, "variants", ", ".join(sorted(kinds)), "values of one type", kind="flag")
        for one in flag.variants:
            if one.do.rule_set is not None and one.do.rule_set not in flags.rule_sets:
                allowed = ", ".join(sorted(flags.rule_sets)) or "none is in `rule_sets`"
                yield Fault(flag.key, "do.rule_set", shorten(one.do.rule_set), allowed, kind="flag")
    for mine, other in combinations([flag for flag in flags.flags if flag.running], 2):
        if mine.layer is not None and mine.layer == other.layer:
            if max(mine.slice.begin, other.slice.begin) < min(mine.slice.end, other.slice.end):
                taken = f"shoppers that {mine.key!r} does not have"
                yield Fault(
                    other.key, "slice", f"{other.slice.begin:g}-{other.slice.end:g}", taken, kind="flag"
                )
        elif both := mine.knobs & other.knobs:
            told = f"what {mine.key!r} leaves alone, or its layer"
            yield Fault(other.key, "variants", ", ".join(sorted(both)), told, kind="flag")


def _refused(allowed: str) -> PydanticCustomError:
    return PydanticCustomError("meaning", "{allowed}", {"allowed": allowed})


def _of_file(value: str, allowed: str) -> FlagsError:
    return FlagsError([Fault("-", "document", value, allowed, kind="flag")])
