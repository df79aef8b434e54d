"""A document against the shop's products: what it names that is not there, bars that it pins, or starves."""

from collections.abc import Iterator

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.clock import instant, micros
from feature_repo.errors import shorten
from feature_repo.events import SURFACES
from serving.rules.compiled import Compiled, ranges, selected
from serving.rules.document import Document, Fault, Rule, Where
from serving.types import Context, Mask, Request

FULL = 12  # products that a surface needs for a list
NEAR = 5  # allowed values that are named


def faults(document: Document, matrix: ItemMatrix, now: int) -> list[Fault]:
    """What is refused, then what is warned of, each in the order of the rules."""
    found = list(_faults(document, matrix, now))
    return sorted(found, key=lambda fault: not fault.refused)


def _faults(document: Document, matrix: ItemMatrix, now: int) -> Iterator[Fault]:
    for rule in document.rules:
        yield from _of_window(rule, now)
        for field, where in _wheres(rule):
            yield from _of_where(rule, field, where, matrix, now)
        if floor := rule.do.floor:
            for name, value in (("margin", floor.margin), ("stock", floor.stock)):
                if value is not None and np.isnan(getattr(matrix, name)).all():
                    yield _lacking(rule, f"do.floor.{name}", value, name)
        if (cap := rule.do.at_most) and not (matrix.brand if cap.per == "brand" else matrix.category).any():
            yield _lacking(rule, "do.at_most.per", cap.per, cap.per)
        if pin := rule.do.pin:
            for item in pin.items:
                if item not in matrix.row:
                    yield Fault(
                        rule.id, "do.pin.items", shorten(item), "is no product of the catalogue", False
                    )
    yield from _contradictions(document, matrix, now)
    yield from _starved(document, matrix, now)


def _of_window(rule: Rule, now: int) -> Iterator[Fault]:
    if rule.when.end and micros(rule.when.end) <= now:
        yield Fault(
            rule.id, "when.until", rule.when.end.isoformat(), "is over: the rule holds no more", False
        )


def _wheres(rule: Rule) -> Iterator[tuple[str, Where]]:
    for name in ("boost", "block", "only"):
        if action := getattr(rule.do, name):
            yield f"do.{name}.where", action.where


def _of_where(rule: Rule, field: str, where: Where, matrix: ItemMatrix, now: int) -> Iterator[Fault]:
    known = {
        "item_id": matrix.ids,
        "brand": matrix.brands[1:],
        "category": [path for path in matrix.categories if path],
        "tag": list(matrix.tags),
    }
    lacking = False
    for name, values in known.items():
        asked = getattr(where, name)
        if asked is None:
            continue
        if not values:
            lacking = True
            yield _lacking(rule, f"{field}.{name}", asked, name)
            continue
        for one in (asked,) if isinstance(asked, str) else asked:
            if name == "category":
                there = any(f"{path}/".startswith(f"{one}/") for path in values)
            else:
                there = one in matrix.row if name == "item_id" else one in values
            if not there:
                some = ", ".join(map(shorten, values[:NEAR]))
                yield Fault(
                    rule.id,
                    f"{field}.{name}",
                    shorten(one),
                    f"is not in the catalogue, which has {some}, ...",
                    False,
                )
    for name, column in ranges(matrix, now).items():
        if getattr(where, name) is not None and np.isnan(column).all():
            lacking = True
            yield _lacking(rule, f"{field}.{name}", "a range", name)
    if not lacking and not selected(where, matrix, now).any():
        yield Fault(rule.id, field, "no product", "fits: the rule does nothing", rule.do.only is not None)


def _lacking(rule: Rule, field: str, value: object, name: str) -> Fault:
    """A rule on what the shop's catalogue tells of no product cannot do what it says."""
    return Fault(
        rule.id, field, shorten(value), f"what the catalogue holds, and it holds no {name} of any product"
    )


def _contradictions(document: Document, matrix: ItemMatrix, now: int) -> Iterator[Fault]:
    """A pin of a product that other rules bar wherever both hold."""
    bars = [(rule, barred(rule, matrix, now)) for rule in document.rules]
    for rule in document.rules:
        for item in rule.do.pin.items if rule.do.pin else ():
            row = matrix.row.get(item)
            for other, mask in bars:
                if row is not None and mask is not None and mask[row] and _meet(rule, other):
                    told = f"is barred by rule {shorten(other.id)}: it is not shown where both hold"
                    yield Fault(rule.id, "do.pin.items", shorten(item), told, False)


def barred(rule: Rule, matrix: ItemMatrix, now: int) -> Mask | None:
    """The products that the rule takes out, bool (N,); None for a rule that takes none."""
    if not (rule.do.block or rule.do.floor or rule.do.only):
        return None
    alone = rule.model_copy(update={"when": rule.when.model_construct()})
    allowed = Compiled(Document(rules=(alone,)), matrix, now).steering(Request(SURFACES[0]), now).allowed
    return np.zeros(len(matrix), np.bool_) if allowed is None else ~allowed


def _meet(one: Rule, other: Rule) -> bool:
    """Whether there is a list for which both hold, as far as surface, audience and time tell."""
    for name in ("surface", "device", "channel", "country"):
        ours, theirs = getattr(one.when, name), getattr(other.when, name)
        if ours and theirs and not set(ours) & set(theirs):
            return False
    if None not in (one.when.known, other.when.known) and one.when.known != other.when.known:
        return False
    ends = [when.end for when in (one.when, other.when) if when.end]
    begins = [when.begin for when in (one.when, other.when) if when.begin]
    return not (ends and begins) or max(begins) < min(ends)


def audiences(document: Document) -> Iterator[tuple[str, Request]]:
    """A request of every kind that the rules tell apart: in words, and as it would be asked."""
    seen: set[tuple[object, ...]] = set()
    whens = [rule.when for rule in document.rules]
    pages: list[str | None] = [None]
    pages += [
        one
        for w in whens
        for one in ([w.page_category] if isinstance(w.page_category, str) else w.page_category or ())
    ]
    for when in whens:
        for surface in when.surface or SURFACES:
            for page in dict.fromkeys(pages):
                for known in (False, True) if when.known is None else (when.known,):
                    device, channel, country = (
                        (v or (None,))[0] for v in (when.device, when.channel, when.country)
                    )
                    key = (surface, page, known, device, channel, country)
                    if key in seen:
                        continue
                    seen.add(key)
                    told = [
                        surface,
                        "known" if known else "anonymous",
                        *filter(None, (device, channel, country)),
                    ]
                    told += [f"page {page}"] if page else []
                    context = Context(device=device, channel=channel, country=country, category=page)
                    yield (
                        ", ".join(told),
                        Request(surface, user_id="somebody" if known else None, context=context),
                    )


def moments(document: Document, now: int) -> list[int]:
    """Now, and each later instant at which a rule begins or ends, us."""
    edges = [edge for rule in document.rules for edge in (rule.when.begin, rule.when.end) if edge]
    return [now, *sorted({at for edge in edges if (at := micros(edge)) > now})]


def _starved(document: Document, matrix: ItemMatrix, now: int) -> Iterator[Fault]:
    compiled = Compiled(document, matrix, now)
    sold = (matrix.available_from <= now) & ~(matrix.stock <= 0)
    told: set[tuple[int, ...]] = set()
    for words, request in audiences(document):
        for moment in moments(document, now):
            steering = compiled.steering(request, moment)
            if steering.allowed is None:
                continue
            left = int(np.count_nonzero(steering.allowed & sold))
            bars = tuple(rule for rule in steering.rules)
            if left >= FULL or (key := (left, *map(hash, bars))) in told:
                continue
            told.add(key)
            when = "" if moment == now else f" from {instant(moment):%Y-%m-%d %H:%M} UTC"
            names = ", ".join(
                shorten(rule.id)
                for rule in document.rules
                if rule.id in bars and (rule.do.block or rule.do.only or rule.do.floor)
            )
            text = f"products are left for {words}{when}, a list has {FULL}; they are narrowed by {names}"
            yield Fault(names.split(", ")[0].strip("'"), "do", str(left), text, False)
