"""Whatever bytes and mappings are given: every line is accounted for, or one line says what is wrong."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import cli
from pipelines.ingest.files import delimited
from pipelines.ingest.files.delimited import read_delimited

PROJECT = Path(__file__).resolve().parents[3]
EXAMPLES = int(os.environ.get("ENDCAP_FUZZ", "200"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

CELLS = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                "A1",
                "s1",
                "product_viewed",
                "detail",
                "NULL",
                "(not set)",
                "yes",
                "NO",
                "1.5",
                "-1",
                "1e400",
            ),
            *(
                "2026-01-31T12:00:00Z",
                "2026-01-31 12:00:00 -0500",
                "31.01.2026",
                "0000-00-00",
                "Jan 31, 2026",
            ),
            *(
                "1769857200123",
                "9999-12-31 23:59:59 America/New_York",
                "1,299.00",
                "12,99",
                "a|b||a",
                "\u0661",
            ),
            *(
                '"',
                '""',
                '"a',
                'a"',
                '"a""b"',
                '"a\nb"',
                '"a\n\nb"',
                "a\0b",
                "\x85",
                "\u2028",
                "'",
                "x" * 300,
            ),
        ]
    ),
    st.text(max_size=6),
)
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n"])
DELIMITERS = st.sampled_from([",", ";", "\t", "|"])
HEADER = ["when", "action", "visit", "sku", "paid", "line"]


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """A text file that is more or less delimited."""
    delimiter, end = draw(DELIMITERS), draw(ENDS)
    header = draw(st.one_of(st.just(HEADER), st.lists(st.sampled_from([*HEADER, "", '"sku"']), max_size=7)))
    rows = draw(st.lists(st.lists(CELLS, min_size=len(header), max_size=len(header)), max_size=8))
    odd = draw(st.lists(st.lists(CELLS, max_size=8), max_size=3))
    lines = [delimiter.join(cells) for cells in [header, *rows, *odd]]
    text = end.join(lines) + draw(st.sampled_from(["", end]))
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"])), "replace")


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    values = st.recursive(
        CELLS | st.none() | st.booleans() | st.integers() | st.floats(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(HEADER), inner, max_size=3)
        ),
        max_leaves=5,
    )
    whole = {name: CELLS for name in HEADER}
    rows = draw(st.lists(st.fixed_dictionaries(whole) | st.dictionaries(st.sampled_from(HEADER), values)))
    return "\n".join(json.dumps(row) for row in rows).encode() + draw(
        st.sampled_from([b"", b"\n[", b'\n{"a"'])
    )


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A parquet file of columns of any type."""
    count = draw(st.integers(0, 4))
    kinds: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
        (pa.string(), CELLS),
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.float64(), st.floats()),
        (pa.bool_(), st.booleans()),
        (pa.date32(), st.dates()),
        (pa.timestamp("s"), st.integers(-(2**52), 2**52)),
        (pa.timestamp("ns", "UTC"), st.integers(-(2**62), 2**62)),
        (pa.list_(pa.string()), st.lists(CELLS | st.none(), max_size=3)),
        (pa.null(), st.none()),
    ]
    arrays = []
    for _ in HEADER:
        kind, values = draw(st.sampled_from(kinds))
        cells = draw(st.lists(values | st.none(), min_size=count, max_size=count))
        arrays.append(pa.array(cells, kind))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, names=draw(st.permutations(HEADER))), sink)
    content = sink.getvalue().to_pybytes()
    return content[: len(content) - draw(st.sampled_from([0, 0, 0, 9]))]


FILES = st.one_of(
    st.tuples(st.sampled_from(["e.csv", "E.CSV", "e.tsv", "e.txt", "e.csv.gz"]), texts()),
    st.tuples(st.sampled_from(["e.jsonl", "e.ndjson"]), objects()),
    st.tuples(st.just("e.parquet"), tables()),
    st.tuples(st.sampled_from(["e.csv", "e.parquet", "e.jsonl", "e.xlsx"]), st.binary(max_size=60)),
    st.tuples(st.just("e.csv.gz"), texts().map(gzip.compress)),
)
COLUMNS = {"event_ts": "when", "type": "action", "session_id": "visit", "item_id": "sku"}
KEYS: dict[str, st.SearchStrategy[Any]] = {
    "columns": st.just(COLUMNS | {"price": "paid"})
    | st.just(COLUMNS | {"user_id": "line", "quantity": "paid", "created_ts": "when"}),
    "types": st.just({"detail": "product_viewed", "yes": "return"}) | st.just({"a": "b"}),
    "other_types": st.sampled_from(["skip", "quarantine", "drop"]),
    "timezone": st.sampled_from(["Europe/Berlin", "Mars/Base", "../x", ""]),
    "time_format": st.sampled_from(["%d.%m.%Y", "%H", "%Q", "%Y-%m-%dT%H:%M:%S%z", "%"]),
    "epoch": st.sampled_from(["s", "ms", "us", "ns"]),
    "decimal": st.sampled_from([",", "."]),
    "delimiter": st.sampled_from([",", ";", "tab", "ab", '"', "\n"]),
    "encoding": st.sampled_from(["utf-8", "utf-16", "windows-1252", "rot13"]),
    "nothing": st.just(["A1", "x"]) | st.just([]),
    "defaults": st.sampled_from(
        [
            {"device": "desktop"},
            {"type": "click"},
            {"price": "9,5"},
            {"price": "x"},
            {"event_ts": "2026"},
            None,
        ]
    ),
}
MAPPINGS = st.one_of(
    st.fixed_dictionaries(
        {"columns": KEYS["columns"]},
        optional={key: values for key, values in KEYS.items() if key != "columns"},
    ),
    st.fixed_dictionaries({"columns": st.just(COLUMNS)}),
)
ANY_YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(list(KEYS)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose shop has the mapping m.yaml, and whose limit lets any share of the rows be refused."""
    constants = yaml.safe_load((PROJECT / "params.yaml").read_text())
    constants["ingest"]["max_quarantined_share"] = 1.0
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(constants))
    shop = {"name": "any", "adapter": "table", "source": "export", "mapping": "m.yaml"}
    cuts = {cut: f"2026-01-0{i}" for i, cut in enumerate(("rank_from", "valid_from", "test_from"), 1)}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shop.yaml").write_text(yaml.safe_dump(shop | cuts))
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    return tmp_path


def imported(home: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any] | None:
    """The report, or None where one line told what is wrong; nothing else may happen."""
    shutil.rmtree(home / "data" / "raw", ignore_errors=True)
    capsys.readouterr()
    code = cli.run(["ingest", "--json"])
    out, err = capsys.readouterr()
    if code == 0:
        assert not err
        return json.loads(out)
    (line,) = err.splitlines()
    assert code == 1 and line.startswith("endcap: ") and "Next: " in line
    return None


@FUZZ
@given(file=FILES, mapping=MAPPINGS)
def test_rows_of_any_file_are_out_or_in_quarantine_or_told(
    home: Path, capsys: pytest.CaptureFixture[str], file: tuple[str, bytes], mapping: dict[str, Any]
) -> None:
    name, content = file
    shutil.rmtree(home / "export", ignore_errors=True)
    (home / "export").mkdir()
    (home / "export" / name).write_bytes(content)
    (home / "m.yaml").write_text(yaml.safe_dump({"events": {"file": name} | mapping}))
    if (report := imported(home, capsys)) is not None:
        part = report["parts"]["events"]
        held = pq.read_metadata(home / "data" / "quarantine" / "events.parquet").num_rows
        out = sum(report["outputs"][kind]["rows"] for kind in ("events", "impressions"))
        assert part["rows_in"] == out + held + part["skipped"] > 0


@FUZZ
@given(
    content=st.one_of(
        ANY_YAML.map(yaml.safe_dump).map(str.encode), st.binary(max_size=40), st.text().map(str.encode)
    )
)
def test_any_bytes_as_a_mapping_are_refused_in_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (home / "m.yaml").write_bytes(content)
    assert imported(home, capsys) is None


@FUZZ
@given(
    rows=st.lists(st.lists(st.sampled_from(["a", "", "é", "\0", " ", "x y", "'"]), max_size=4), max_size=12),
    ends=ENDS,
)
def test_a_file_without_quotes_reads_the_same_by_either_way(
    tmp_path: Path, rows: list[list[str]], ends: str
) -> None:
    path = tmp_path / "e.csv"
    path.write_bytes(ends.join([",".join(cells) for cells in [["h", "i", "j"], *rows]]).encode())
    fast = read_delimited(path, ["h", "j"], ",", "utf-8").table
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_has_quote", lambda content: True)
        slow = read_delimited(path, ["h", "j"], ",", "utf-8").table
    assert fast.equals(slow)


@FUZZ
@given(pieces=st.lists(st.sampled_from(["a", '"', '""', ",", "\n", "\n\n", "x", ",,"]), max_size=40))
def test_every_line_of_a_file_with_quotes_is_in_a_row_or_refused(tmp_path: Path, pieces: list[str]) -> None:
    path = tmp_path / "e.csv"
    path.write_text('h,i,j\n"1",2,3\n' + "".join(pieces))
    found = read_delimited(path, ["h"], ",", "utf-8").table  # raises when lines do not add up
    assert found.num_rows == len(set(found["line"].to_pylist()))
