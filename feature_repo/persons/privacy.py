"""The shop's settings about persons, and the key of its pseudonyms."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from feature_repo.errors import ParamsError
from feature_repo.files import secret
from feature_repo.params import load, shop
from feature_repo.persons import tombstones
from feature_repo.persons.pseudonyms import Persons
from feature_repo.places import EVENTS, at

VARIABLE = "ENDCAP_PERSON_KEY"
SIMULATED = "simulated shoppers are nobody"
PRINT = b"endcap.persons"  # in the metadata of data/raw/*.parquet: whose key made its pseudonyms
LOST = (
    "{file}: not there, or not the key of the pseudonyms in data/raw; allowed: that key. Next: put it back "
    "(or set ENDCAP_PERSON_KEY); where it is lost, remove data/raw and run `endcap ingest`: all are strangers"
)


@dataclass(frozen=True)
class Retention:
    """`privacy.retention:`, days; `endcap retain` removes what is older. docs/privacy.md has the table."""

    served: int
    email: int
    feedback: int
    logs: int
    receipts: int
    receipts_kept: int  # not days: how many


@dataclass(frozen=True)
class Privacy:
    """`privacy:`"""

    pseudonyms: bool
    region: str
    retention: Retention

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]{0,8}", self.region):
            raise ParamsError(f"privacy.region: {self.region!r}; allowed: 0 to 8 letters a-z, as 'eu'")


def key_file() -> Path:
    """Of the active shop; outside of data/, whose copies then tell nobody's id."""
    return shop().run_dir() / "person.key"


def persons() -> Persons:
    """Pseudonyms and tombstones of the active shop; its key is made when there is no data yet.

    Raises ParamsError where data/raw was made by another key, which is then lost, and for a key that others
    may read.
    """
    params, made_by = load("privacy", Privacy), print_of_data()
    found = Persons(key().encode(), params.region, params.pseudonyms, tombstones.read())
    if made_by not in (None, "plain", found.print) and params.pseudonyms:
        raise ParamsError(LOST.format(file=key_file()))
    return found


def key() -> str:
    """$ENDCAP_PERSON_KEY, else what key_file() holds; errors as `persons`.

    Simulated shoppers are nobody: their key is known, so that every copy of such a shop has the same rows.
    """
    if given := os.environ.get(VARIABLE):
        return given
    if shop().adapter == "simulated":
        return SIMULATED
    file = key_file()
    if not file.exists() and print_of_data() not in (None, "plain"):
        raise ParamsError(LOST.format(file=file))
    if not (found := secret(file)):
        raise ParamsError(f"{file}: empty; allowed: the key. Next: put it back, or remove the file")
    if mode := file.stat().st_mode & 0o077:
        raise ParamsError(f"{file}: mode {mode:03o} lets others in; allowed: 600. Next: chmod 600 {file}")
    return found


def print_of_data() -> str | None:
    """Whose key made data/raw; None without data, or with data of a version that made no pseudonyms."""
    if not at(EVENTS).exists():
        return None
    try:
        found = (pq.read_schema(at(EVENTS)).metadata or {}).get(PRINT)
    except (OSError, ValueError):  # no parquet: whoever reads it says so
        return None
    return found.decode() if found else None
