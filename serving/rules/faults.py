"""What is wrong with a document of rules, in words: the rule, the field, its value, what is allowed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from feature_repo.errors import EndcapError, shorten

PLAIN = r"^[^\x00-\x1f\x7f-\x9f]+$"  # no control characters
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Models = Mapping[Any, type[BaseModel]]  # name of a part of the document -> its class


class Fault(NamedTuple):
    """What is wrong with a rule; `refused`: with it no list can be right, else it is a warning."""

    rule: str
    field: str
    value: str
    allowed: str
    refused: bool = True
    kind: str = "rule"

    def line(self) -> str:
        """For a person.

        >>> Fault("sale", "do.boost.factor", "-1", "0 to 100").line()
        "refused: rule 'sale', do.boost.factor: -1 is not allowed; allowed: 0 to 100"
        """
        told = f"{self.kind} {shorten(self.rule)}, {self.field}: {self.value} "
        if self.refused:
            return f"refused: {told}is not allowed; allowed: {self.allowed}"
        return f"warning: {told}{self.allowed}"


class RulesError(EndcapError):
    """A document that is refused, with every fault that was found."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(f"rules: {faults[0].line()}{more}. Next: `endcap rules lint FILE` tells all.")


def translated(
    errors: Iterable[ErrorDetails], raw: Any, models: Models, listed: str = "rules", name: str = "id"
) -> list[Fault]:
    """The errors that pydantic found in `raw`, the parsed JSON, in our words.

    A fault of one of those in the list `listed` is told under its `name`.
    """
    return [_fault(raw, error, models, listed, name) for error in errors if not _echoes(error)]


def _fault(raw: Any, error: Mapping[str, Any], models: Models, listed: str, name: str) -> Fault:
    """One of pydantic's errors in our words."""
    place, kind = list(error["loc"]), listed.removesuffix("s")
    rule = "-"
    if place[:1] == [listed] and len(place) > 1 and isinstance(place[1], int):
        named = raw[listed][place[1]]
        told = named.get(name) if isinstance(named, Mapping) else None
        rule = told if isinstance(told, str) and told else f"#{place[1] + 1}"
        place = place[2:]
    field = _path(part for part in place if not _of_union(part)) or kind
    value = "none" if error["type"] == "missing" else shorten(_plain(error["input"]))
    return Fault(rule, field, value, _allowed(error, models), kind=kind)


def _echoes(error: Mapping[str, Any]) -> bool:
    """A list that is "too short" only because what stands in it was refused already."""
    return error["type"] == "too_short" and bool(error["input"])


def _plain(value: Any) -> Any:
    """As it stood in the document, where a check has made an object of it."""
    return value.model_dump(by_alias=True, exclude_unset=True) if isinstance(value, BaseModel) else value


def _of_union(part: Any) -> bool:
    """A name that pydantic gives to a way of reading a field, not to a field."""
    return isinstance(part, str) and not part.replace("_", "").isalnum()


def _path(parts: Iterable[Any]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{shorten(part)[1:-1]}" if text else str(part)
    return text


def _allowed(error: Mapping[str, Any], models: Models) -> str:
    told, kind = error.get("ctx", {}), error["type"]
    if kind == "extra_forbidden":
        keys = models[next((part for part in reversed(error["loc"][:-1]) if part in models), "")]
        return f"the keys {', '.join(field.alias or name for name, field in keys.model_fields.items())}"
    if kind == "missing":
        return "a value: the key is needed"
    if kind == "string_pattern_mismatch":
        name = told.get("pattern") == NAME
        return "letters, digits, . _ and -, a letter or digit first" if name else "no control characters"
    if "allowed" in told:
        return str(told["allowed"])
    message: str = error["msg"]
    return message.removeprefix("Input should be ").removeprefix("a valid ")
