"""`endcap rules`: a file of rules checked, previewed, tried out beside the lists, published, taken back."""

from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer
from redis import Redis

from feature_repo.errors import DataError, EndcapError, shorten
from feature_repo.online.connection import connect
from pipelines.release.aliases import act_of
from serving.release import workers
from serving.rules import lint, published
from serving.rules.document import Document, Fault, parse, render

Action = Literal["lint", "preview", "lab", "shadow", "publish", "revert", "show"]


class Usage(EndcapError):
    """An option that this action needs, or has no use for."""


def main(
    action: Annotated[Action, typer.Argument(help="lint, preview, lab, shadow, publish, revert or show.")],
    file: Annotated[Path | None, typer.Argument(help="the rules, JSON (docs/merchandising.md)")] = None,
    why: Annotated[str, typer.Option(help="shadow, publish, revert: the reason, for the audit.")] = "",
    to: Annotated[int | None, typer.Option(help="revert: this version; default: the one before.")] = None,
    end: Annotated[bool, typer.Option(help="shadow: try nothing out any more.")] = False,
    surface: Annotated[str | None, typer.Option(help="preview: only this surface.")] = None,
    user_id: Annotated[str | None, typer.Option(help="preview: lists of this shopper.")] = None,
    session_id: Annotated[str | None, typer.Option(help="preview: lists of this visit.")] = None,
    last: Annotated[int, typer.Option(min=1, help="lab: so many of the newest logged answers.")] = 500,
    json_output: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """The merchandiser's rules: check, preview, try out, publish, take back."""
    draft = _draft(action, file, end)
    redis = connect()
    seen = published.read(redis)
    if action == "show":
        _show(redis, seen, json_output)
        return 0
    if action == "revert":
        _say(published.revert(redis, act_of(_reason(why)), seen, to), json_output)
        return 0
    if draft is None:
        _say(published.set_shadow(redis, None, act_of(why or "ended"), seen), json_output)
        return 0
    from monitoring.fitting import lab, preview, showroom  # Feast takes seconds
    from pipelines.rules import lab_table, preview_lines

    room, now = showroom.opened(redis), workers.now(redis)
    faults = lint.faults(draft, room.matrix, now)
    if action == "lint" or any(fault.refused for fault in faults):
        return _tell(draft, faults, json_output)
    if action == "preview":
        before, _ = published.documents(seen)
        asked = preview.requests(redis, draft, surface, user_id, session_id)
        for found in preview.lists(room, before, draft, now, asked):
            as_json = json_output and orjson.dumps(preview_lines.as_json(found)).decode()
            print(as_json or "\n".join(preview_lines.lines(room, found)), flush=True)
        return 0
    if action == "lab":
        report = lab.run(redis, room, published.documents(seen)[0], draft, now, last)
        print(orjson.dumps(report).decode()) if json_output else lab_table.show(report)
        return 0
    act = act_of(_reason(why) if action == "publish" else why or "tried out")
    change = published.publish if action == "publish" else published.set_shadow
    for fault in faults:
        if not json_output:
            print(fault.line())
    _say(change(redis, draft, act, seen), json_output)
    return 0


def _draft(action: str, file: Path | None, end: bool) -> Document | None:
    needs = action in ("lint", "preview", "lab", "publish") or (action == "shadow" and not end)
    if needs and file is None:
        raise Usage(
            f"FILE: `endcap rules {action}` needs a file of rules, as docs/merchandising.md shows one"
        )
    if not needs or file is None:
        return None
    try:
        text = file.read_bytes()
    except OSError as error:
        raise DataError(
            file, f"cannot be read ({error.strerror})", next_step="name a file of rules"
        ) from None
    return parse(text)


def _reason(why: str) -> str:
    if not why.strip():
        raise Usage('--why: a change of the rules needs a reason for the audit; allowed: --why "text"')
    return why


def _tell(draft: Document, faults: list[Fault], json_output: bool) -> int:
    refused = sum(fault.refused for fault in faults)
    if json_output:
        print(orjson.dumps([fault._asdict() for fault in faults]).decode())
    else:
        for fault in faults:
            print(fault.line())
        print(f"{len(draft.rules)} rules: {refused} refused, {len(faults) - refused} warnings")
    return int(refused > 0)


def _say(found: published.Published, json_output: bool) -> None:
    document, shadow = published.documents(found)
    if json_output:
        print(orjson.dumps({"version": found.version, "shadow": found.shadow_name}).decode())
        return
    print(f"version {found.version} holds: {len(document.rules)} rules")
    if shadow:
        print(f"{found.shadow_name} is tried out: {len(shadow.rules)} rules")


def _show(redis: Redis, found: published.Published, json_output: bool) -> None:
    if json_output:
        document, _ = published.documents(found)
        print(render(document, found.version).decode())
        return
    _say(found, json_output)
    document, _ = published.documents(found)
    if found.shadow_name:
        from monitoring.fitting.lab import tried

        pairs, changed, slots = tried(redis, found.shadow_name)
        print(f"of its last {pairs} lists {changed} differ from what was shown, in {slots} slots")
    for rule in document.rules:
        print(f"  {rule.id:<24} {rule.do.action:<8} {shorten(rule.why, 40)[1:-1]}")
