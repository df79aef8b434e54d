"""The mapping file of the `table` adapter: which column of the shop's files is which canonical field.

Every value is the text that stands in the file: YAML's own reading, which makes false of the country NO and
a date of a version, is switched off. All faults are told at once, each by place, value and what is allowed.
"""

import codecs
import re
from collections.abc import Hashable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from zoneinfo import ZoneInfo

import pyarrow as pa
import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from feature_repo.errors import DataError, shorten
from feature_repo.events import ITEM_SCHEMA, SCHEMA, TYPES
from feature_repo.vocabulary.naming import NOTHING
from feature_repo.vocabulary.trackers import RETURN
from pipelines.ingest.adapters.cells import kind_of
from pipelines.ingest.adapters.conversions import constant
from pipelines.ingest.adapters.instants import Reading
from pipelines.ingest.files.feeds import FEED

STEP = "correct the mapping file; docs/ingest.md lists its keys"
ENCODINGS = (
    *("utf-8", "utf-16", "windows-1250", "windows-1251", "windows-1252", "windows-1254", "iso-8859-1"),
    *("iso-8859-2", "iso-8859-15", "shift_jis", "euc-jp", "gb18030", "big5", "euc-kr", "koi8-r"),
)
_SAMPLE = datetime(2026, 1, 31)
_Whole = TypeVar("_Whole", bound=BaseModel)


def _event_field(name: str) -> str:
    return _field(name, SCHEMA)


def _item_field(name: str) -> str:
    return _field(name, ITEM_SCHEMA)


def _field(name: str, schema: pa.Schema) -> str:
    if name not in schema.names:
        raise ValueError(f"'{name}' is no canonical field; allowed: {', '.join(schema.names)}")
    return name


def _target(word: str) -> str:
    if word not in (*TYPES, RETURN):
        raise ValueError(f"one of {', '.join(TYPES)}, {RETURN}")
    return word


def _encoding(name: str) -> str:
    """The name in ENCODINGS of what is also called cp1252, latin1 or UTF8."""
    with suppress(LookupError, ValueError):
        for known in ENCODINGS:
            if codecs.lookup(known).name == codecs.lookup(name).name:
                return known
    raise ValueError(f"one of {', '.join(ENCODINGS)}")


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except Exception as error:  # a folder, a file that is no zone, a name that no path can have
        raise ValueError("a name such as Europe/Berlin") from error
    return name


def _delimiter(text: str) -> str:
    text = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(text) != 1 or text in '"\r\n\0' or not text.isascii():
        raise ValueError("one character, or the word tab")
    return text


def _time_format(text: str) -> str:
    try:
        again = datetime.strptime(_SAMPLE.strftime(text), text)
    except (ValueError, re.error) as error:
        raise ValueError(f"a format of strptime, such as %d.%m.%Y %H:%M ({error})") from error
    if again.date() != _SAMPLE.date() or "%Z" in text:
        raise ValueError("a format with year, month and day, such as %d.%m.%Y; zones by %z or as a suffix")
    return text


def _absent(value: Any) -> Any:
    """A key without a value is as if it were not there."""
    return {} if value == "" else value


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _named(text: str) -> str:
    if not text:
        raise ValueError("a name")
    return text


Text = Annotated[str, AfterValidator(_named)]
EventField = Annotated[str, AfterValidator(_event_field)]
ItemField = Annotated[str, AfterValidator(_item_field)]


class Part(BaseModel):
    """One part of an export; docs/ingest.md explains each key."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    fields_of: ClassVar[pa.Schema] = SCHEMA
    required: ClassVar[tuple[str, ...]] = ()

    file: Annotated[list[Text], BeforeValidator(_one_or_more)]
    columns: dict[str, Text]
    types: Annotated[dict[str, Annotated[str, AfterValidator(_target)]], BeforeValidator(_absent)] = {}
    other_types: Literal["quarantine", "skip"] = "quarantine"
    defaults: Annotated[dict[str, str], BeforeValidator(_absent)] = {}
    nothing: Annotated[list[str], BeforeValidator(_one_or_more)] = list(NOTHING)
    timezone: Annotated[str, AfterValidator(_zone)] | None = None
    time_format: Annotated[str, AfterValidator(_time_format)] | None = None
    epoch: Literal["s", "ms", "us"] | None = None
    decimal: Literal[".", ","] | None = None
    delimiter: Annotated[str, AfterValidator(_delimiter)] | None = None
    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"

    @property
    def reading(self) -> Reading:
        return Reading(self.timezone, self.time_format, self.epoch)

    def constants(self) -> dict[str, str]:
        """Field -> SQL of its constant."""
        return {name: self._constant(name) for name in self.defaults}

    @model_validator(mode="after")
    def _fits(self) -> "Part":
        faults = []
        for name in self.required:
            if name not in self.columns and name not in self.defaults:
                needed = ", ".join(self.required)
                faults.append(f".columns: '{name}' is not mapped and has no default; needed: {needed}")
        for name, text in self.defaults.items():
            try:
                self._constant(name)
            except ValueError as error:
                faults.append(f".defaults.{name}: {shorten(text)}; allowed: {error}")
        if self.epoch and self.time_format:
            faults.append(".epoch: beside time_format; allowed: one of both")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _constant(self, name: str) -> str:
        kind = kind_of(self.fields_of.field(name))
        return constant(name, kind, self.defaults[name], self.reading, self.decimal)


class Events(Part):
    """What shoppers did."""

    required: ClassVar[tuple[str, ...]] = ("event_ts", "type", "session_id", "item_id")
    columns: dict[EventField, Text]
    defaults: Annotated[dict[EventField, str], BeforeValidator(_absent)] = {}


class Impressions(Events):
    """What they were shown."""

    required = ("event_ts", "session_id", "item_id")


class Items(Part):
    """The catalogue."""

    fields_of = ITEM_SCHEMA
    required = ("item_id",)
    columns: dict[ItemField, Text] = dict(FEED)  # left out: a product feed of Google Merchant Center
    defaults: Annotated[dict[ItemField, str], BeforeValidator(_absent)] = {}

    @property
    def is_feed(self) -> bool:
        """No columns are named: those of Google's product data specification are meant."""
        return "columns" not in self.model_fields_set


class Catalogue(BaseModel):
    """The whole file of an adapter that knows its events itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    items: Items


class ShopMapping(BaseModel):
    """The whole file; without items the catalogue is made of the events' items."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    events: Events
    impressions: Impressions | None = None
    items: Items | None = None


class _Literally(yaml.BaseLoader):
    """YAML without aliases, tags and repeated keys; every scalar is text."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="an alias (*name); write the value out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value.__hash__ is None or key.value in seen:
                problem = f"the key {shorten(key.value)} stands twice or is no text"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_catalogue(path: Path) -> Catalogue:
    """A mapping file with nothing but items. Raises DataError as read_mapping does."""
    return _read(path, Catalogue)


def read_mapping(path: Path) -> ShopMapping:
    """The mapping file. Raises DataError that names every key that is unknown, missing or wrong."""
    return _read(path, ShopMapping)


def _read(path: Path, whole: type[_Whole]) -> _Whole:
    try:
        values = yaml.load(path.read_text("utf-8-sig"), _Literally)
        return whole.model_validate(values)
    except OSError as error:
        step = "check shops.<name>.mapping in params.yaml"
        raise DataError(path, f"the mapping file: {error.strerror or error}", next_step=step) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        told = "; ".join(str(error).splitlines()) or "nested too deeply"
        raise DataError(path, f"not YAML: {told}", next_step=STEP) from error
    except ValidationError as error:
        raise DataError(path, "; ".join(_told(error, whole)), next_step=STEP) from error


def _told(error: ValidationError, whole: type[BaseModel]) -> list[str]:
    """One text per fault: place, value, what is allowed."""
    told = []
    for fault in error.errors(include_url=False):
        place = ".".join(str(step) for step in fault["loc"] if step != "[key]") or "the mapping"
        value, message = fault["input"], fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            known = ", ".join(Part.model_fields if len(fault["loc"]) > 1 else whole.model_fields)
            told.append(f"{place}: unknown key; allowed: {known}")
        elif fault["type"] == "missing":
            told.append(f"{place}: is missing")
        elif message.startswith("."):
            told += [place + line for line in message.splitlines()]
        elif "allowed: " in message:
            told.append(f"{place}: {message}")
        else:
            allowed = message.removeprefix("Input should be ").replace("'", "").replace(" or ", ", ")
            told.append(f"{place}: {shorten(value)}; allowed: {allowed}")
    return told
