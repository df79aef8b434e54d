"""`endcap rules lab FILE`: a draft against the answers that were logged. Nothing is guessed.

Each logged answer has its candidates with the ranker's scores, its context and what was barred for its
shopper. The list is made again by the rules that hold and by the draft, and once more for every rule of the
draft without that rule: what differs is what the rule did. A campaign to come is tried as if
these shoppers came at its beginning. No draw of the long tail takes part. Products that
the rules of that time had barred are in no log, so a draft cannot win them back here: `preview` shows that.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from redis import Redis

from monitoring.fitting.preview import moment
from monitoring.fitting.reliability import Fates, clicked, reliability
from monitoring.fitting.relisted import Answer, Answers
from monitoring.fitting.showroom import Showroom
from serving.beside.tryout import PAIRS
from serving.live.exposures import SERVED
from serving.rules import lint
from serving.rules.compiled import Compiled
from serving.rules.document import Document

NAMED = 5  # products that gain or lose most, of the draft; of a rule ONE
ONE = 1
PAIRS_READ = 1_000
EXPECTED = ("ctr", "margin_per_impression")


@dataclass
class Deed:
    """What one rule of the draft did: lists it held for, lists it changed, slots that hold
    something else for it, and products that are in a list for it.

    `shown`: the products of those lists without it and with it; `expected`: clicks, and clicks times margin,
    that each of them has more by it.
    """

    action: str
    held: int = 0
    changed: int = 0
    displaced: int = 0
    brought: int = 0
    slots: int = 0
    shown: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))
    expected: list[list[float]] = field(default_factory=list)
    impressions: Counter[str] = field(default_factory=Counter)  # item -> slots more, or fewer


@dataclass
class Findings:
    """Of all answers together."""

    answers: int = 0
    unusable: int = 0  # of another release, or logged before rules could be judged by them
    later: int = 0  # answers on which the draft was tried as of another time than theirs
    agreeing: int = 0  # slots that the rules that held give again, of `shown`
    shown: int = 0
    slots: int = 0
    displaced: int = 0
    short: Counter[str] = field(
        default_factory=Counter
    )  # surface -> lists with fewer products than asked for
    before: Counter[str] = field(default_factory=Counter)  # item -> impressions
    after: Counter[str] = field(default_factory=Counter)
    expected: list[list[float]] = field(default_factory=list)  # clicks, margin before; clicks, margin after


def run(
    redis: Redis,
    room: Showroom,
    held: Document,
    draft: Document,
    now: int,
    last: int,
    fates: Fates | None = None,
) -> dict[str, Any]:
    """The report on the newest `last` answers of the log, as JSON. `fates`: of who asks again and again."""
    entries: Any = redis.xrevrange(SERVED, count=last)
    entries = entries[::-1]
    answers = Answers(entries, room)
    old, new = Compiled(held, room.matrix, now), Compiled(draft, room.matrix, now)
    deeds = {rule.id: Deed(str(rule.do.action)) for rule in draft.rules}
    found = Findings(unusable=answers.unusable)
    chances = room.bundle.profit.chances
    clicks = (fates.look() if fates else clicked(redis, entries)) if chances.known else {}
    true = reliability(answers, clicks, chances) if chances.known else None
    scale = true["factor"] if true else {}
    for answer in answers:
        at = answer.now if draft is held else moment(draft, new, answer.request, answer.now)
        _judge(answer, at, room, old, new, deeds, found, scale.get(answer.request.surface, 1.0))
    told = _report(found, deeds, room, lint.faults(draft, room.matrix, now))
    return told | {"reliability": true}


def _judge(
    answer: Answer,
    at: int,
    room: Showroom,
    old: Compiled,
    new: Compiled,
    deeds: dict[str, Deed],
    found: Findings,
    scale: float,
) -> None:
    diversity, request = room.bundle.diversify, answer.request
    profit = room.bundle.profit
    before = then = answer.list(diversity, old.steering(request, answer.now), profit)
    if at != answer.now:
        found.later += 1
        before = answer.list(diversity, old.steering(request, at), profit)
    steering = new.steering(request, at)
    after = answer.list(diversity, steering, profit)

    def expected(items: list[str]) -> list[float]:
        return [scale * told for told in answer.expected(profit.chances, items)]

    if profit.chances.known:
        found.expected.append(expected(before) + expected(after))
    found.answers += 1
    found.shown += len(answer.shown[:-1])  # the last may be the long tail's
    found.agreeing += len(answer.shown[:-1]) - _differing(answer.shown[:-1], then[: len(answer.shown) - 1])
    found.slots += max(len(before), len(after))
    found.displaced += _differing(before, after)
    found.before.update(before)
    found.after.update(after)
    if len(after) < request.limit:
        found.short[request.surface] += 1
    for name in steering.rules:
        deed = deeds[name]
        deed.held += 1
        deed.slots += len(after)
        without = answer.list(diversity, new.steering(request, at, without=name), profit)
        for items, seen in zip((without, after), deed.shown, strict=True):
            seen.update(items)
        if profit.chances.known:
            deed.expected.append([b - a for a, b in zip(expected(without), expected(after), strict=True)])
        if differing := _differing(without, after):
            deed.changed += 1
            deed.displaced += differing
            deed.brought += len(set(after) - set(without))
            deed.impressions.update(after)
            deed.impressions.subtract(without)


def _differing(one: list[str], other: list[str]) -> int:
    """Slots that hold something else."""
    same = sum(a == b for a, b in zip(one, other, strict=False))
    return max(len(one), len(other)) - same


def _report(
    found: Findings, deeds: dict[str, Deed], room: Showroom, faults: list[lint.Fault]
) -> dict[str, Any]:
    change = Counter(found.after)
    change.subtract(found.before)
    rules = [
        {
            "rule": name,
            "action": deed.action,
            "held": deed.held,
            "changed": deed.changed,
            "displaced": deed.displaced,
            "brought": deed.brought,
            "dead": deed.changed == 0,
            "products": [len(seen) for seen in deed.shown],
            "expected": _by_rule(deed),
            "gains": _most(deed.impressions, room, ONE, 1),
            "loses": _most(deed.impressions, room, ONE, -1),
        }
        for name, deed in deeds.items()
    ]
    return {
        "answers": found.answers,
        "unusable": found.unusable,
        "later": found.later,
        "agreement": found.agreeing / found.shown if found.shown else None,
        "slots": found.slots,
        "displaced": found.displaced,
        "margin": [_mean(room, found.before, "margin"), _mean(room, found.after, "margin")],
        "expected": _expected(found),
        "price": [_mean(room, found.before, "price"), _mean(room, found.after, "price")],
        "products": [len(found.before), len(+found.after)],
        "catalogue": len(room.matrix),
        "rules": rules,
        "gain": _most(change, room, NAMED, 1),
        "lose": _most(change, room, NAMED, -1),
        "short": dict(found.short),
        "faults": [fault._asdict() for fault in faults],
    }


def _expected(found: Findings) -> dict[str, Any] | None:
    """Per slot before and after, with the 95 % interval of the change over answers; None where no chance of a
    click is calibrated."""
    if not found.expected or not found.slots:
        return None
    sums, n = np.array(found.expected), found.slots / len(found.expected)
    told: dict[str, Any] = {}
    for at, name in enumerate(EXPECTED):
        told[name] = [float(sums[:, at].mean() / n), float(sums[:, at + 2].mean() / n)]
        told[f"{name}_change"] = _change((sums[:, at + 2] - sums[:, at]) / n)
    return told


def _by_rule(deed: Deed) -> dict[str, Any] | None:
    """The same per slot of the lists that the rule held for; what it changes alone."""
    if not deed.expected or not deed.slots:
        return None
    changes = np.array(deed.expected) * (len(deed.expected) / deed.slots)
    return {f"{name}_change": _change(changes[:, at]) for at, name in enumerate(EXPECTED)}


def _change(of: Any) -> list[float]:
    """Mean and its 95 % interval over answers."""
    mean, spread = float(of.mean()), 1.96 * float(of.std()) / len(of) ** 0.5
    return [mean, mean - spread, mean + spread]


def _most(change: Counter[str], room: Showroom, n: int, sign: int) -> list[dict[str, Any]]:
    ordered = sorted(change.items(), key=lambda pair: (-sign * pair[1], pair[0]))
    return [
        {"item_id": item, "title": room.titles.get(item, item), "slots": by}
        for item, by in ordered[:n]
        if sign * by > 0
    ]


def _mean(room: Showroom, shown: Counter[str], column: str) -> float | None:
    """Over slots, of the products whose value is known."""
    values = getattr(room.matrix, column)
    known = [
        (values[room.matrix.row[i]], n) for i, n in shown.items() if not np.isnan(values[room.matrix.row[i]])
    ]
    total = sum(n for _, n in known)
    return round(float(sum(v * n for v, n in known) / total), 4) if total else None


def tried(redis: Redis, draft: str) -> tuple[int, int, int]:
    """(lists, those that differ, slots that differ) of the newest that a draft made beside what was shown."""
    entries: Any = redis.xrevrange(PAIRS, count=PAIRS_READ)
    pairs = [pair for _, fields in entries if (pair := orjson.loads(fields[b"pair"]))["draft"] == draft]
    differing = [
        sum(a[0] != b[0] for a, b in zip(pair["shown"], pair["shadow"], strict=False)) for pair in pairs
    ]
    return len(pairs), sum(map(bool, differing)), sum(differing)
