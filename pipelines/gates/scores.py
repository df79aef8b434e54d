"""Each question's score, ours and the baseline's: two releases asked the same are compared pair by pair.

A release carries them as scores.parquet, beside what its digest is of. Rows hold no ids: a question is its
place in the order of its part, a visit a number, and a part's digest tells whether another asked the same.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.files import write_parquet

Doubles = npt.NDArray[np.float64]
_TOLD = b"endcap.scores"
_FIELDS = {"part": pa.string(), "visit": pa.int32(), "ours": pa.float32(), "baseline": pa.float32()}


class Asked(Protocol):
    """A question, as pipelines.protocol.queries.Query is one."""

    @property
    def session_id(self) -> str: ...
    @property
    def now(self) -> int: ...
    @property
    def relevant(self) -> frozenset[str]: ...


@dataclass(frozen=True)
class Part:
    """What one kind of question came to: session continuation, or a surface's own.

    visit int (q,) · ours, baseline float64 (q,): NDCG@12, or 1 for a hit · slices: name -> bool (q,)
    """

    questions: str  # digest of what was asked, in its order
    against: str  # the baseline's name
    visit: npt.NDArray[np.int32]
    ours: Doubles
    baseline: Doubles
    slices: Mapping[str, npt.NDArray[np.bool_]]

    @classmethod
    def of(
        cls,
        queries: Sequence[Asked],
        against: str,
        ours: Doubles,
        baseline: Doubles,
        slices: Sequence[Mapping[str, bool]] = (),
    ) -> Self:
        """`queries` in the order of the scores; `slices` of each, or none."""
        asked = [[query.session_id, query.now, *sorted(query.relevant)] for query in queries]
        _, visit = np.unique([query.session_id for query in queries], return_inverse=True)
        inside = {name: np.array([one[name] for one in slices]) for name in (slices[0] if slices else ())}
        digest = hashlib.sha256(orjson.dumps(asked)).hexdigest()
        return cls(digest, against, visit.astype(np.int32), ours, baseline, inside)


@dataclass(frozen=True)
class Scores:
    """All parts of one evaluation."""

    parts: Mapping[str, Part]

    def write(self, path: Path, evaluation: str) -> None:
        """`evaluation`: fingerprint of the report that the scores are of."""
        told = {name: [part.questions, part.against] for name, part in self.parts.items()}
        named = sorted({name for part in self.parts.values() for name in part.slices})
        types = _FIELDS | dict.fromkeys(named, pa.bool_())
        fields = [pa.field(name, kind, nullable=False) for name, kind in types.items()]
        meta = {_TOLD: orjson.dumps({"evaluation": evaluation, "parts": told})}
        schema = pa.schema(fields, metadata=meta)
        write_parquet(path, schema, [_table(name, part, schema) for name, part in self.parts.items()])

    @classmethod
    def read(cls, path: Path, evaluation: str) -> Self | None:
        """None where there are none of this evaluation, as in a release of before there were scores."""
        if not path.exists():
            return None
        table = pq.read_table(path)
        told = orjson.loads((table.schema.metadata or {}).get(_TOLD, b"{}"))
        if told.get("evaluation") != evaluation:
            return None
        columns: dict[str, Any] = {name: table[name].to_numpy() for name in table.column_names}
        parts = {}
        for name, (questions, against) in told["parts"].items():
            mine = columns["part"] == name
            ours, baseline = (columns[side][mine].astype(np.float64) for side in ("ours", "baseline"))
            inside = {one: columns[one][mine] for one in table.column_names if one not in _FIELDS}
            inside = {one: rows for one, rows in inside.items() if rows.any()}
            parts[name] = Part(questions, against, columns["visit"][mine], ours, baseline, inside)
        return cls(parts)


def _table(name: str, part: Part, schema: pa.Schema) -> pa.Table:
    nobody = np.zeros(len(part.visit), np.bool_)
    columns = {"part": [name] * len(part.visit), "visit": part.visit}
    columns |= {"ours": part.ours.astype(np.float32), "baseline": part.baseline.astype(np.float32)}
    slices = {one: part.slices.get(one, nobody) for one in schema.names if one not in _FIELDS}
    return pa.table(columns | slices, schema)
