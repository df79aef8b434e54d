"""One side of a comparison: an evaluation with its params, of a project folder or of a git revision.

A revision's files are read by DVC, from git and from its cache: a commit, a tag, a branch, or an experiment
as `dvc exp show` calls it. Nothing is checked out.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from feature_repo.errors import EndcapError
from feature_repo.params import CHOSEN, FOR_DVC, flat, root
from feature_repo.places import EVALUATION, ITEMS, RESULTS, at, existing
from pipelines.protocol.results import SCHEMA

PARAMS = Path("params.yaml")
Read = Callable[[Path], bytes]


class CompareError(EndcapError):
    """A side that cannot be read, or two that cannot be compared."""


@dataclass(frozen=True)
class Side:
    """`results`: rows of pipelines.protocol.results.SCHEMA; `params`: flat, "ranker.seed" -> 7."""

    name: str
    report: Mapping[str, Any]
    params: Mapping[str, Any]
    results: pd.DataFrame


def side(name: str) -> Side:
    """The project folder, or else the git revision of the active project, that is called so.

    Raises CompareError where it is neither, or was not evaluated, or not by a version that keeps each query.
    """
    if Path(name).is_dir():
        return _side(name, lambda place: (Path(name) / place).read_bytes())
    from dvc.exceptions import DvcException, NotDvcRepoError  # DVC takes a second to import
    from dvc.repo import Repo
    from scmrepo.exceptions import SCMError

    try:
        with Repo(str(root())) as repo, repo.switch(name):
            return _side(name, lambda place: _of_revision(repo, place))
    except NotDvcRepoError as error:
        problem = f"is no folder, and {root()} is no DVC repository with revisions"
        raise CompareError(f"{name}: {problem}; name two project folders") from error
    except (SCMError, DvcException) as error:
        problem = f"is no folder and no revision or experiment: {error}"
        raise CompareError(f"{name}: {problem}; `git log` and `dvc exp show` list them") from error


def titles() -> dict[str, str]:
    """Item -> title, of the active project's catalogue."""
    table = pq.read_table(existing(ITEMS, "ingest", "item_id", "title"), columns=["item_id", "title"])
    return dict(zip(*(table[column].to_pylist() for column in table.column_names), strict=True))


def here() -> str:
    """The name of the active project's own side."""
    return str(at(Path()))


def _of_revision(repo: Any, place: Path) -> bytes:
    with repo.dvcfs.open(str(place), "rb") as file:
        found: bytes = file.read()
        return found


def _side(name: str, read: Read) -> Side:
    try:
        place = EVALUATION
        report = orjson.loads(read(place))
        place = RESULTS
        table = pq.read_table(io.BytesIO(read(place)))
        place = PARAMS
        params = dict(flat(yaml.safe_load(read(PARAMS)))) | _of_shop(read)
    except FileNotFoundError as error:
        step = "evaluate there with `dvc repro evaluate` and, for a revision, commit dvc.lock"
        raise CompareError(f"{name}: {place} is neither there nor in DVC's cache; {step}") from error
    except (ValueError, pa.ArrowException, yaml.YAMLError) as error:
        problem = f"its evaluation cannot be read: {error}"
        raise CompareError(f"{name}: {problem}; run `dvc repro evaluate` there again") from error
    lacks = sorted(set(SCHEMA.names) - set(table.column_names))
    if lacks or not isinstance(report, dict) or not {"shop", "models", "serves"} <= set(report):
        problem = "its evaluation is of another version or program"
        raise CompareError(f"{name}: {problem}; run `dvc repro evaluate` there again")
    return Side(name, report, params, table.to_pandas())


def _of_shop(read: Read) -> dict[str, Any]:
    """data/shop.yaml as "shop.source" and so on; empty where none was chosen."""
    try:
        chosen = yaml.safe_load(read(CHOSEN))
    except FileNotFoundError:
        return {}
    return dict(flat({"shop": {key: value for key, value in chosen.items() if key != FOR_DVC}}))
