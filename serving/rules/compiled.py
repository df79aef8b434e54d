"""A document against one snapshot of the items: which rules hold for a request, and what they come to.

Which hold is a conjunction of bits, one dictionary look-up per condition. What a set of rules comes to, masks
and factors over the catalogue, is kept per set: a request pays for neither the number of rules nor the size
of the catalogue (benchmarks/rules.py).
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.clock import DAY_US, HOUR_US, micros
from feature_repo.events import SURFACES
from serving.rules.document import ACTIONS, Document, Range, Rule, Where
from serving.stages.steering import FEW, Cap, Pin, Steering
from serving.types import Mask, Request, Rows

KEPT_BYTES = 32 << 20  # of masks and factors that are kept, and LEAST_KEPT sets whatever they weigh
LEAST_KEPT = 16
ROW_BYTES = 7  # of a set: bool, float32 and int16 per item


class Touch(NamedTuple):
    """A rule that concerns a product: its id, what it does, and whether it bars the product."""

    rule: str
    does: str
    bars: bool


class Compiled:
    """The rules of one version for one catalogue; `steering` answers for a request.

    Products' ages are those of the hour in which it was made.
    """

    def __init__(self, document: Document, matrix: ItemMatrix, now: int, version: int = 0) -> None:
        self.version, self._rules, self._matrix = version, document.rules, matrix
        self._hour = now // HOUR_US
        self._aged = '"age_days"' in document.model_dump_json(exclude_unset=True)
        self._conditions = Conditions(document.rules)
        self._rows = [_touched(rule, matrix, now) for rule in document.rules]
        self._kept: dict[int, Steering] = {}
        self._most = max(LEAST_KEPT, KEPT_BYTES // (ROW_BYTES * max(len(matrix), 1)))

    def fits(self, matrix: ItemMatrix, now: int) -> bool:
        """Whether the masks are of these items as they are now."""
        return self.of(matrix) and matrix.price is self._matrix.price and not self._late(now)

    def of(self, matrix: ItemMatrix) -> bool:
        """Whether the masks are of these items, prices and stock of some earlier moment perhaps."""
        return matrix.ids is self._matrix.ids and len(matrix) == len(self._matrix)

    def _late(self, now: int) -> bool:
        return self._aged and now // HOUR_US != self._hour

    def steering(self, request: Request, now: int, without: str | None = None) -> Steering:
        """What the rules ask of the list for `request` at `now` (us); the one of id `without` is left out."""
        bits = self._conditions.holding(request, now)
        if without is not None:
            bits &= ~sum(1 << at for at, rule in enumerate(self._rules) if rule.id == without)
        found = self._kept.get(bits)
        if found is None:
            if len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            found = self._kept[bits] = self._made(bits)
        return found

    def touching(self, request: Request, now: int, row: int) -> list[Touch]:
        """The rules that hold for `request` at `now` (us) and concern a row, the first first."""
        bits, found, narrowed = self._conditions.holding(request, now), list[Touch](), False
        for at, rule in enumerate(self._rules):
            if not bits >> at & 1:
                continue
            action = next(name for name in ACTIONS if getattr(rule.do, name) is not None)
            inside = row in self._rows[at]
            if action == "only":
                bars = not inside and not narrowed  # the first one counts
                concerned, narrowed = bars or inside, True
            elif action == "pin":
                pin = rule.do.pin
                concerned, bars = pin is not None and self._matrix.ids[row] in pin.items, False
            elif action == "at_most":
                cap = rule.do.at_most
                concerned, bars = cap is not None and getattr(self._matrix, cap.per)[row] > 0, False
            else:
                concerned, bars = inside, action != "boost"
            if concerned:
                found.append(Touch(rule.id, action, bars))
        return found

    def warm(self, like: "Compiled | None", now: int) -> None:
        """Make beforehand what requests will ask for: the sets that `like` was asked for, or plain ones."""
        if like is not None and like._rules is self._rules:
            sets = list(like._kept)
        else:
            plain = [Request(name, user_id=user) for name in SURFACES for user in (None, "somebody")]
            sets = [self._conditions.holding(request, now) for request in plain]
        for bits in sets[: self._most]:
            self._kept.setdefault(bits, self._made(bits))

    def _made(self, bits: int) -> Steering:
        held = [at for at in range(len(self._rules)) if bits >> at & 1]
        if not held:
            return Steering(self.version)
        n = len(self._matrix)
        allowed, factor, by = np.ones(n, np.bool_), np.ones(n, np.float32), np.full(n, -1, np.int16)
        weighs, only = False, None
        caps: dict[str, int] = {}  # all hold, so the least of each kind
        pins: list[Pin] = []
        for place, at in reversed(list(enumerate(held))):  # the first rule is written last, and so wins
            rule, rows = self._rules[at], self._rows[at]
            if rule.do.boost:
                factor[rows], by[rows], weighs = rule.do.boost.factor, place, True
            elif rule.do.only:
                only = at
            elif rule.do.at_most:
                cap = rule.do.at_most
                caps[cap.per] = min(cap.slots, caps.get(cap.per, cap.slots))
            elif rule.do.pin:
                known = (
                    (slot, self._matrix.row.get(i))
                    for i, slot in zip(rule.do.pin.items, rule.do.pin.slots, strict=True)
                )
                pins = [Pin(slot, row, rule.id) for slot, row in known if row is not None] + pins
            else:
                allowed[rows] = False
        if only is not None:
            listed = np.zeros(n, np.bool_)
            listed[self._rows[only]] = True
            allowed &= listed
        ids = tuple(self._rules[at].id for at in held)
        return Steering(
            self.version,
            ids,
            None if allowed.all() else allowed,
            np.flatnonzero(allowed) if np.count_nonzero(allowed) <= FEW else None,
            factor if weighs else None,
            by if weighs else None,
            None if only is None else self._rules[only].id,
            tuple(Cap(getattr(self._matrix, per), slots) for per, slots in caps.items()),
            tuple(pins),
        )


class Conditions:
    """Which of the rules hold for a request: bit i of an int is rules[i]."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        whens = [rule.when for rule in rules]
        self._every = (1 << len(whens)) - 1
        self._surface, self._any_surface = _by_value(when.surface for when in whens)
        self._device, self._any_device = _by_value(when.device for when in whens)
        self._channel, self._any_channel = _by_value(when.channel for when in whens)
        self._country, self._any_country = _by_value(when.country for when in whens)
        self._page, self._any_page = _by_value(_listed(when.page_category) for when in whens)
        self._known = [
            sum(1 << at for at, when in enumerate(whens) if when.known in (None, known))
            for known in (False, True)
        ]
        spans = [(micros(w.begin) if w.begin else None, micros(w.end) if w.end else None) for w in whens]
        self._edges = sorted({edge for span in spans for edge in span if edge is not None})
        self._within = [
            sum(
                1 << at
                for at, (begin, end) in enumerate(spans)
                if (begin is None or begin <= since) and (end is None or since < end)
            )
            for since in (-1, *self._edges)
        ]

    def holding(self, request: Request, now: int) -> int:
        """The rules for `request` at `now` (us)."""
        context = request.context
        bits = self._within[bisect_right(self._edges, now)] & self._known[request.user_id is not None]
        bits &= self._surface.get(request.surface, 0) | self._any_surface
        bits &= self._device.get(_plain(context.device), 0) | self._any_device
        bits &= self._channel.get(_plain(context.channel), 0) | self._any_channel
        bits &= self._country.get(_plain(context.country), 0) | self._any_country
        return bits & (self._of_page(context.category) | self._any_page)

    def _of_page(self, category: str | None) -> int:
        if not self._page or not category:
            return 0
        bits, path = 0, ""
        for part in category.lower().split("/"):
            path = f"{path}/{part}" if path else part
            bits |= self._page.get(path, 0)
        return bits


def _by_value(wanted: Iterable[tuple[str, ...] | None]) -> tuple[dict[str, int], int]:
    """(value -> rules that name it, rules that name none)."""
    found: dict[str, int] = {}
    unasked = 0
    for at, values in enumerate(wanted):
        if values is None:
            unasked |= 1 << at
        for value in values or ():
            found[value.lower()] = found.get(value.lower(), 0) | 1 << at
    return found, unasked


def _plain(text: str | None) -> str:
    return text.lower() if text else ""


def _listed(value: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
    return (value,) if isinstance(value, str) else value


def _touched(rule: Rule, matrix: ItemMatrix, now: int) -> Rows:
    """The rows that the rule bars (block, floor), weighs (boost) or leaves (only)."""
    for action in (rule.do.boost, rule.do.block, rule.do.only):
        if action:
            return np.flatnonzero(selected(action.where, matrix, now))
    if rule.do.floor:
        floors = (matrix.margin, rule.do.floor.margin), (matrix.stock, rule.do.floor.stock)
        low = np.zeros(len(matrix), np.bool_)
        for values, floor in floors:
            if floor is not None:
                low |= values < floor  # not where the value is unknown
        return np.flatnonzero(low)
    return np.zeros(0, np.int64)


def selected(where: Where, matrix: ItemMatrix, now: int) -> Mask:
    """The products that a selector means, bool (N,); an unknown value is in no range."""
    mask = np.ones(len(matrix), np.bool_)
    if where.item_id:
        mask &= _mask_of(matrix.rows_of(where.item_id), len(matrix))
    if brands := _listed(where.brand):
        wanted = set(brands)
        mask &= np.array([name in wanted for name in matrix.brands])[matrix.brand]
    if paths := _listed(where.category):
        below = tuple(f"{path}/" for path in paths)
        mask &= np.array([f"{name}/".startswith(below) for name in matrix.categories])[matrix.category]
    if tags := _listed(where.tag):
        rows = [matrix.tags[tag] for tag in tags if tag in matrix.tags]
        mask &= _mask_of(np.concatenate(rows) if rows else np.zeros(0, np.int64), len(matrix))
    for name, values in ranges(matrix, now).items():
        span: Range | None = getattr(where, name)
        if span is not None:
            low = -np.inf if span.low is None else span.low
            high = np.inf if span.high is None else span.high
            mask &= (values >= low) & (values <= high)
    return mask


def ranges(matrix: ItemMatrix, now: int) -> Mapping[str, Any]:
    """Selector -> value of each product, float64 (N,), NaN for unknown."""
    first = np.where(matrix.available_from > 0, matrix.available_from, matrix.activity["first_ts"])
    age = np.where(first > 0, (now - first) / DAY_US, np.nan)
    return {"price": matrix.price, "margin": matrix.margin, "stock": matrix.stock, "age_days": age}


def _mask_of(rows: Rows, n: int) -> Mask:
    mask = np.zeros(n, np.bool_)
    mask[rows] = True
    return mask
