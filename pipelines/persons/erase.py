"""`endcap erase ID`: the person's rows are removed everywhere, and stay out.

1. tombstones: doors and imports drop what comes from now on (a worker knows within a second)
2. look through every place and remove, until a look finds nothing: what was on its way has arrived by then
3. Redis writes its file anew, DVC's lock takes the files as they are
4. the receipt

Killed anywhere, the same command goes on where it stopped: each step looks at what is there.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from feature_repo.errors import EndcapError, ParamsError
from feature_repo.files import alone, reserved
from feature_repo.online.connection import connect
from feature_repo.params import shop
from feature_repo.persons import tombstones
from feature_repo.persons.privacy import persons
from feature_repo.persons.pseudonyms import Persons
from feature_repo.places import REWRITING
from feature_repo.terminal import reader
from pipelines.persons import learned_from, online_rows, receipt, stage_outputs, unfinished, whose
from pipelines.persons.person import look
from pipelines.persons.receipt import Receipt
from pipelines.persons.sweep import Erased, Found
from pipelines.retrain.dvc_cache import undisturbed
from pipelines.retrain.land import LOCK as LANDING
from serving.release.state import Act, record

LOCK = "erase.lock"
LOOKS = 10  # before it is said that somebody writes the rows again and again
SETTLES_S = (
    2.5  # a worker reads the tombstones every second, and what it had read before it writes within another
)


class EraseError(EndcapError):
    """Rows of an erased person that could not be removed, or are there again."""


def main(
    identity: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="A user_id or session_id, or its pseudonym; - reads it."),
    ] = None,
    to: Annotated[Path | None, typer.Option("--receipt", help="Where the receipt is written.")] = None,
    why: Annotated[str | None, typer.Option(help="By whose wish; for the receipt and the audit.")] = None,
    verify: Annotated[Path | None, typer.Option(help="A receipt: is everything still gone?")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Whoever was erased, after a backup was restored.")
    ] = False,
) -> int:
    """Remove a person from every store, with a receipt; or check one."""
    if verify is not None:
        if identity is not None or to is not None or why is not None:
            raise typer.BadParameter("--verify stands alone")
        return check(verify)
    if again:
        with connect() as redis, alone(shop().run_dir() / LOCK):
            for old in clean(redis):
                stays = f", which stay: {old.held}" if old.held else ""
                print(f"{old.place}: {old.rows:,} rows of the erased were there again{stays}")
        return 0
    if identity is None or to is None or not (why or "").strip():
        raise typer.BadParameter("erase needs ID, --receipt FILE and --why TEXT; or --verify FILE alone")
    assert why is not None
    run = shop().run_dir()
    with (
        connect() as redis,
        alone(run / LOCK),
        reserved(run / REWRITING, "`endcap erase`"),
        undisturbed(),  # a stage that has read the rows must not write them afterwards
        alone(run / LANDING),
    ):
        found = erase(whose.typed(identity), why, redis, to)
    for one in found.places:
        print(f"{one['rows']:>9,} {one['place']}")
    for one in found.held:
        _complain(f"{one['place']}: {one['rows']} rows stay: {one['why']}")
    for one in found.fitted:
        role = f" ({one['serves']})" if one["serves"] else ""
        print(f"fitted with the person's data: {one['release']}{role}; gone with {one['gone']}")
    print(f"removed in {found.took_s:.1f} s; receipt: {to}")
    return int(bool(found.held))


def erase(raw: str, why: str, redis: Any, to: Path) -> Receipt:
    """Errors: whose.person; EraseError where rows come again all the time."""
    began, known = time.monotonic(), persons()
    _writable(to)
    who = whose.person(raw, known, redis)
    of = known.tombstone(who.name)
    names = sorted(unfinished.begin(of, who.tombstones(known)))
    at = datetime.now(UTC).isoformat(timespec="seconds")
    done = Receipt(shop().name, at, why, names)
    known.erased = set(names)  # of this person alone: the receipt counts nobody else's rows
    done.fitted = learned_from.releases(learned_from.first_event(Erased(known)), redis)
    tombstones.keep(names, redis)
    settled = time.monotonic() + SETTLES_S
    _sweep(known, raw, redis, done, settled)
    online_rows.rewrite(redis)
    done.run_again = stage_outputs.commit()
    done.took_s = round(time.monotonic() - began, 1)
    record(redis, "erase", Act("endcap erase", why, time.time_ns() // 1000, {"tombstones": len(names)}))
    done.write(to)
    unfinished.end(of)
    return done


def _sweep(known: Persons, raw: str | None, redis: Any, done: Receipt, settled: float) -> None:
    """Until one look, begun when every worker knows, finds nothing that can be removed."""
    erased = Erased(known)  # of all looks: what was found clean and has not changed is not read again
    for _ in range(LOOKS):
        begun = time.monotonic()
        found = [one for one in look(erased, raw, redis, remove=True) if one.rows]
        done.note(found)
        if all(one.held for one in found) and begun >= settled:
            return
        time.sleep(max(0.0, settled - time.monotonic()))
    step = "a process of an earlier version runs: `endcap down`, `endcap up`, then erase again"
    raise EraseError(f"erase: {found[0].place}: rows came again {LOOKS} times. Next: {step}")


def check(file: Path) -> int:
    """0 where nothing of the receipt's person is anywhere, and the tombstones stand."""
    told, known = receipt.read(file), persons()
    if told.shop != shop().name:
        raise ParamsError(f"--verify: receipt of shop {told.shop!r}; the active one is {shop().name!r}")
    known.erased = set(told.tombstones)
    with connect() as redis:
        found = [one for one in look(Erased(known), None, redis, remove=False) if one.rows]
        stones = tombstones.read() & {one.decode() for one in redis.smembers(tombstones.ERASED)}
    missing = set(told.tombstones) - stones
    for one in found:
        _complain(f"{one.place}: {one.rows} rows{f': {one.held}' if one.held else ''}")
    if missing:
        _complain(f"{len(missing)} tombstones are missing: an import would bring the person back")
    if found or missing:
        _complain("the erase does not hold any more. Next: erase the person again")
        return 1
    print(
        f"{file}: holds; {len(told.places)} places, {sum(one['rows'] for one in told.places):,} rows are gone"
    )
    return 0


def clean(redis: Any) -> list[Found]:
    """Remove whoever was erased and is there again, as after a backup was restored; for `endcap up`."""
    known = persons()
    known.erased = known.erased | tombstones.keep((), redis)
    if not known.erased:
        return []
    found = [one for one in look(Erased(known), None, redis, remove=True) if one.rows]
    if any(not one.held for one in found):
        online_rows.rewrite(redis)
        stage_outputs.commit()
    return found


def _complain(text: str) -> None:
    print(text, file=reader())


def _writable(to: Path) -> None:
    """Before anything is removed: a receipt that cannot be written is no receipt."""
    if not to.parent.is_dir() or to.is_dir():
        raise ParamsError(f"--receipt: {to}; allowed: a file in a folder that is there")
