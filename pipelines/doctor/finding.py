"""What a look at a deployment tells: one line each, so that a terminal of 80 columns holds it."""

from dataclasses import dataclass

OK, NOTE, WARN, MUST = "ok", "note", "warn", "must"
WIDTH = 80


@dataclass(frozen=True)
class Finding:
    """`state`: ok; note, told and not judged; warn, can wait; must, to be mended now.

    >>> print(Finding("appendonly", MUST, "no", "yes", "set appendonly yes").line())
    must  appendonly: no; allowed: yes. Next: set appendonly yes
    """

    thing: str
    state: str
    value: str
    allowed: str = ""
    next: str = ""

    def line(self) -> str:
        """At most WIDTH columns: where they are too few the value is cut, for the next step is needed."""
        head = f"{self.state:<5} {self.thing}: "
        tail = f"; allowed: {self.allowed}" if self.allowed else ""
        tail += f". Next: {self.next}" if self.next else ""
        value = "".join(c if c.isprintable() else "?" for c in self.value)
        return _cut(head + _cut(value, max(WIDTH - len(head) - len(tail), 8)) + tail, WIDTH)


def judged(
    thing: str, right: bool, value: str, allowed: str = "", next_step: str = "", otherwise: str = MUST
) -> Finding:
    """OK where it is `right`, else `otherwise` and what to do."""
    return Finding(thing, OK if right else otherwise, value, allowed, "" if right else next_step)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
