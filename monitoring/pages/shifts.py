"""Drift: which of a release's features moved in live answers, by the report that `endcap drift` wrote."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from feature_repo.errors import DataError
from feature_repo.places import DRIFT
from monitoring.pages.desk import Asked, Desk
from monitoring.pages.phrases import ago

FOLDER = DRIFT.parent.name


def gather(desk: Desk, _: Asked) -> Mapping[str, Any]:
    """The columns, what moved first, and where the picture and the distributions are; raises DataError."""
    file = desk.data / FOLDER / DRIFT.name
    try:
        told = orjson.loads(file.read_bytes())
        written = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        age = ago(int(written.timestamp() * 1e6))
    except FileNotFoundError:
        return {"report": None}
    except ValueError as error:
        raise DataError(DRIFT, f"is no JSON: {error}", next_step="`endcap drift` writes it anew") from error
    columns = sorted(told["columns"], key=lambda one: (not one["drifted"], one["finding"], one["name"]))
    beside = {kind: f"{FOLDER}/{DRIFT.stem}.{kind}" for kind in ("png", "html")}
    there = {kind: path if (desk.data / path).is_file() else "" for kind, path in beside.items()}
    return {"report": told, "columns": columns, "written": written, "beside": there, "age": age}
