"""Receipts of the erases of this console: run/<shop>/receipts/<instant>-<8 hex digits>.json, without ids."""

import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from starlette.responses import FileResponse, Response

from feature_repo.clock import instant
from feature_repo.errors import EndcapError
from feature_repo.params import shop
from monitoring.pages.desk import Asked, Desk

RECEIPT = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}\.json")
LISTED = 50  # on the page


class ReceiptError(EndcapError):
    """No receipt of that name."""


def folder() -> Path:
    """Of the active shop."""
    return shop().run_dir() / "receipts"


def new(now_us: int) -> Path:
    """Where the next one is written; its folder is made."""
    folder().mkdir(parents=True, exist_ok=True)
    return folder() / f"{instant(now_us):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}.json"


def written(name: str) -> dict[str, Any] | None:
    """What is in a receipt; None where it is not written yet."""
    if not RECEIPT.fullmatch(name) or not (folder() / name).is_file():
        return None
    found: dict[str, Any] = orjson.loads((folder() / name).read_bytes())
    return found


def path(name: str) -> Path:
    """The file of a receipt. Raises ReceiptError for any other file."""
    if not RECEIPT.fullmatch(name) or not (folder() / name).is_file():
        raise ReceiptError("receipt: none of that name; allowed: one of /privacy. Next: choose it there")
    return folder() / name


def gather(_: Desk, __: Asked) -> Mapping[str, Any]:
    """The newest ones, for the page with the form."""
    names = sorted((file.name for file in folder().glob("*.json")), reverse=True)[:LISTED]
    return {"receipts": [(name, told) for name in names if (told := written(name))]}


def download(_: Desk, asked: Asked) -> Response:
    """The file."""
    found = path(asked.path["name"])
    return FileResponse(found, media_type="application/json", filename=found.name)
