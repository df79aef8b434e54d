"""Rules: what holds, what is tried out, what held before; back to any of it with one click."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import RedirectResponse, Response

from monitoring.fitting.lab import tried
from monitoring.merchandising.fittings import now_us
from monitoring.pages.desk import MERCHANDISING, Asked, Desk
from serving.release import state
from serving.rules import published
from serving.rules.document import Document, Rule, parse, render

DONE = {
    "published": "The rules are published: every list follows them within a second.",
    "reverted": "What held before holds again.",
    "shadow": "The draft is tried out beside the lists; nobody sees it.",
    "ended": "Nothing is tried out any more.",
}
CHANGES = ("publish_rules", "revert_rules")


def gather(desk: Desk, asked: Asked) -> Mapping[str, Any]:
    """The rules in words, the draft on trial with its counts, and each version with who made it and why."""
    found = published.read(desk.redis)
    held, shadow = published.documents(found)
    audit = state.read_audit(desk.redis, state.AUDIT_KEPT)
    acts = {e["numbers"].get("rules_version"): e for e in audit if e["what"] in CHANGES}
    kept: Any = desk.redis.hkeys(published.VERSIONS)
    numbers = sorted({0} | {int(key) for key in kept}, reverse=True) if found.version else []
    return {
        "found": found,
        "rules": [told(rule) for rule in held.rules],
        "shadow": [told(rule) for rule in shadow.rules] if shadow else None,
        "tried": tried(desk.redis, found.shadow_name) if shadow else None,
        "versions": [(number, acts.get(number)) for number in numbers],
        "may": asked.person.role in MERCHANDISING,
        "done": DONE.get(asked.query.get("done", "")),
    }


def version(desk: Desk, asked: Asked) -> Mapping[str, Any]:
    """One version as a document. Raises NoSuchVersion."""
    number = int(asked.path["number"])
    document, _ = published.version(desk.redis, number)
    return {
        "number": number,
        "text": indented(parse(document)),
        "holds": number == published.read(desk.redis).version,
        "may": asked.person.role in MERCHANDISING,
    }


def revert(desk: Desk, asked: Asked) -> Response:
    """Bring back version `to`, without one what held before the last change."""
    to = asked.form.get("to", "")
    target = int(to) if to.isascii() and to.isdigit() and len(to) < 16 else None
    why = asked.form.get("why", "").strip() or "taken back in the console"
    published.revert(desk.redis, asked.act(why, now_us()), published.read(desk.redis), target)
    return RedirectResponse("/rules?done=reverted", 303)


def end_shadow(desk: Desk, asked: Asked) -> Response:
    """Try nothing out any more."""
    act = asked.act("ended in the console", now_us())
    published.set_shadow(desk.redis, None, act, published.read(desk.redis))
    return RedirectResponse("/rules?done=ended", 303)


def indented(document: Document, number: int | None = None) -> str:
    """As people edit it."""
    return orjson.dumps(orjson.loads(render(document, number)), option=orjson.OPT_INDENT_2).decode()


def told(rule: Rule) -> dict[str, str]:
    """A rule in words: id, action, what it does, when it holds, why.

    >>> from serving.rules.document import parse
    >>> told(parse(b'{"rules": [{"id": "a", "do": {"at_most": {"per": "brand", "slots": 3}}}]}').rules[0])
    {'id': 'a', 'action': 'at_most', 'what': 'per brand, slots 3', 'when': 'always', 'why': ''}
    """
    does: Any = rule.do.model_dump(mode="json", by_alias=True, exclude_unset=True)
    when: Any = rule.when.model_dump(mode="json", by_alias=True, exclude_unset=True)
    action = str(rule.do.action)
    return {
        "id": rule.id,
        "action": action,
        "what": _words(does[action]),
        "when": _words(when) or "always",
        "why": rule.why,
    }


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_plain(name)} {_words(one)}" for name, one in value.items())
    if isinstance(value, list):
        return " or ".join(map(str, value[:5])) + (f" and {len(value) - 5} more" if len(value) > 5 else "")
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _plain(name: str) -> str:
    return "products with" if name == "where" else name.replace("_", " ")
