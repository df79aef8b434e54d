"""A shop's rules as one JSON document, and the check at the door: what does not fit is refused by name.

    {"version": 7, "rules": [{"id": "own-brand", "why": "...", "when": {...}, "do": {"boost": {...}}}, ...]}

The order of `rules` is their priority. The classes below are the schema: `schema()` is the JSON schema that
is published as docs/rules.schema.json. docs/merchandising.md says what each part means.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from feature_repo.errors import shorten
from feature_repo.events import CHANNELS, DEVICES, SURFACES
from serving.rules.faults import NAME, PLAIN, Fault, RulesError, translated

MAX_BYTES = 1 << 20  # of a document
MAX_RULES = 500
MAX_LISTED = 1_000  # values in one list
MAX_SLOT = 99  # as many slots as an answer can have
MAX_FACTOR = 100.0
ACTIONS = ("pin", "boost", "block", "floor", "at_most", "only")

Text = Annotated[str, Field(min_length=1, max_length=256, pattern=PLAIN)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_LISTED)]
OneOrMore = Text | Texts
Number = Annotated[float, Field(ge=-1e12, le=1e12)]


class Strict(BaseModel):
    """Unknown keys, converted types, infinite numbers: all refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Range(Strict):
    """From and to, both included; one of them may be left out."""

    low: Number | None = Field(None, alias="from")
    high: Number | None = Field(None, alias="to")

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if self.low is None and self.high is None:
            raise _refused("`from`, `to` or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise _refused("`from` at most as large as `to`")
        return self


class Where(Strict):
    """Which products: several keys mean all of them, a list means any of its values."""

    item_id: Texts | None = None
    brand: OneOrMore | None = None
    category: OneOrMore | None = None
    tag: OneOrMore | None = None
    price: Range | None = None
    margin: Range | None = None
    stock: Range | None = None
    age_days: Range | None = None

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.model_fields_set:
            raise _refused(f"one or more of {', '.join(Where.model_fields)}")
        return self


class When(Strict):
    """Which lists; what is left out holds for all."""

    surface: tuple[Literal[SURFACES], ...] | None = Field(None, min_length=1)  # type: ignore[valid-type]
    device: tuple[Literal[DEVICES], ...] | None = Field(None, min_length=1)  # type: ignore[valid-type]
    channel: tuple[Literal[CHANNELS], ...] | None = Field(None, min_length=1)  # type: ignore[valid-type]
    country: Texts | None = None
    known: bool | None = None
    page_category: OneOrMore | None = None
    begin: AwareDatetime | None = Field(None, alias="from")
    end: AwareDatetime | None = Field(None, alias="until")

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.begin and self.end and self.begin >= self.end:
            raise _refused("`from` before `until`")
        return self


class PinAction(Strict):
    """Item by item to slot by slot."""

    items: Texts
    slots: tuple[Annotated[int, Field(ge=0, le=MAX_SLOT)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.items) != len(self.slots):
            raise _refused("as many slots as items")
        if len(set(self.items)) < len(self.items) or len(set(self.slots)) < len(self.slots):
            raise _refused("each item and each slot once")
        return self


class BoostAction(Strict):
    """Above 1 boosts, 0 to 1 buries."""

    where: Where
    factor: Annotated[float, Field(ge=0, le=MAX_FACTOR)]


class SelectAction(Strict):
    where: Where


class FloorAction(Strict):
    """A product that is known to have less is not shown."""

    margin: Number | None = None
    stock: Number | None = None

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.margin is None and self.stock is None:
            raise _refused("margin, stock or both")
        return self


class CapAction(Strict):
    per: Literal["brand", "category"]
    slots: Annotated[int, Field(ge=1, le=MAX_SLOT)]


class Do(Strict):
    """One action."""

    pin: PinAction | None = None
    boost: BoostAction | None = None
    block: SelectAction | None = None
    floor: FloorAction | None = None
    at_most: CapAction | None = None
    only: SelectAction | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        if len(self.model_fields_set) != 1 or self.action is None:
            raise _refused(f"one of {', '.join(ACTIONS)}")
        return self

    @property
    def action(self) -> str | None:
        """The name of what is done."""
        return next((name for name in ACTIONS if getattr(self, name) is not None), None)


class Rule(Strict):
    id: Annotated[str, Field(min_length=1, max_length=64, pattern=NAME)]
    why: Annotated[str, Field(max_length=500)] = ""
    when: When = When.model_construct()
    do: Do


class Document(Strict):
    """All rules of a shop. `version`: the published one that it was made from, if it says."""

    version: Annotated[int, Field(ge=0, le=2**53)] | None = None
    rules: Annotated[tuple[Rule, ...], Field(max_length=MAX_RULES)]


NOTHING = Document(rules=())

KEYS: dict[Any, type[Strict]] = {
    "": Document,
    "rules": Rule,
    "when": When,
    "do": Do,
    "where": Where,
    "pin": PinAction,
}
KEYS |= {"boost": BoostAction, "block": SelectAction, "only": SelectAction, "floor": FloorAction}
KEYS |= {"at_most": CapAction} | dict.fromkeys(("price", "margin", "stock", "age_days"), Range)


def parse(text: bytes) -> Document:
    """The document, checked in itself. Raises RulesError with every fault, and nothing else."""
    if len(text) > MAX_BYTES:
        raise _of_file(f"{len(text)} bytes", f"at most {MAX_BYTES} bytes")
    try:
        orjson.loads(text)  # UTF-8, no half characters, no NaN
        raw = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise _of_file(shorten(text[:40]), f"one JSON object in UTF-8, each key once ({error})") from None
    try:
        document = Document.model_validate_json(text)
    except ValidationError as error:
        raise RulesError(translated(error.errors(), raw, KEYS)) from None
    ids = [rule.id for rule in document.rules]
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        raise RulesError([Fault(one, "id", shorten(one), "each id once") for one in twice])
    return document


def render(document: Document, version: int | None = None) -> bytes:
    """The document as JSON, under another `version` if one is given; what says nothing is left out."""
    told = document.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return orjson.dumps(({"version": version} if version is not None else {}) | _without_version(told))


def schema() -> dict[str, Any]:
    """The JSON schema of a document, for editors; `parse` checks the same and what no schema can say."""
    return Document.model_json_schema(by_alias=True)


def _without_version(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != "version"}


def _refused(allowed: str) -> PydanticCustomError:
    return PydanticCustomError("meaning", "{allowed}", {"allowed": allowed})


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{shorten(next(n for n in names if names.count(n) > 1))} is given twice")
    return found


def _of_file(value: str, allowed: str) -> RulesError:
    return RulesError([Fault("-", "document", value, allowed)])


if __name__ == "__main__":  # python -m serving.rules.document > docs/rules.schema.json
    print(json.dumps(schema(), indent=1))
