"""`endcap person ID`: every place that holds rows of a shopper or of a visit that nobody is known in."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from feature_repo.online.connection import connect
from feature_repo.persons.privacy import persons
from pipelines.persons import online_rows, stage_outputs, stored_files, whose
from pipelines.persons.sweep import Erased, Found


def main(
    identity: Annotated[
        str, typer.Argument(metavar="ID", help="A user_id or session_id, or its pseudonym; - reads it.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Where the rows of a person lie, how many, and the first of each; 1 where there are none."""
    known, identity = persons(), whose.typed(identity)
    with connect() as redis:
        who = whose.person(identity, known, redis)
        known.erased = set(who.tombstones(known))
        found = [one for one in look(Erased(known), identity, redis, remove=False) if one.rows]
    told = {"name": who.name, "visits": len(who.visits)}
    if as_json:
        print(json.dumps(told | {"places": [vars(one) for one in found]}))
    else:
        print(f"{who.name}, visits: {len(who.visits)}")
        for one in found:
            print(f"{one.rows:>9,} {one.place:<56} {', '.join(one.examples)}")
    return int(not found)


def look(erased: Erased, raw: str | None, redis: Any, remove: bool) -> Iterator[Found]:
    """Through every place, in the order in which one is made of another."""
    yield from online_rows.look(redis, erased, remove)
    yield from stored_files.look(erased, raw, remove)
    yield from stage_outputs.look(erased, remove)
