"""Which files a part is made of, and the bytes of a text file as UTF-8 with `\\n` at each line's end."""

import glob
import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from feature_repo.errors import DataError, shorten

PACKED = (".gz", ".zst")
KINDS = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "delimited"),
    **dict.fromkeys((".ndjson", ".jsonl", ".json"), "json"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    ".xml": "feed",
}
_GZIP, _ZSTD, _ZIP, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Cells:
    """One file: the wanted columns, called "0", "1" ..., and each row's `source_row` and `line`, from 1.

    A row that could not be split into cells has its text in `unread_line` and, where it is not merely too
    long or too short, the reason in `unread_why`.
    """

    table: pa.Table
    told: str = ""  # what was found out about the file's form


def files_of(folder: Path, patterns: list[str]) -> list[Path]:
    """The files that the names and patterns mean, each once, those of a pattern in sorted order.

    Raises DataError for one that matches nothing, or is a folder.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = folder / pattern
        try:
            if path.is_dir():
                step = f"write '{pattern.rstrip('/')}/*.csv' for all the files in it"
                raise DataError(path, "is a folder; allowed: a file, or a pattern of files", next_step=step)
            if path.is_file():
                found[path] = None
                continue
            near = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 also absolute ones
        except (OSError, ValueError) as error:
            raise DataError(
                path, f"no such file ({error})", next_step="correct `file` in the mapping"
            ) from error
        if not (matching := [name for name in near if name.is_file()]):
            there = sorted(name.name for name in folder.iterdir()) if folder.is_dir() else []
            seen = f"; {folder} has {shorten(', '.join(there[:8]))}" if there else ""
            step = "correct `file` in the mapping, or the shop's source folder in params.yaml"
            raise DataError(path, f"no such file{seen}", next_step=step)
        found |= dict.fromkeys(matching)
    return list(found)


def kind_of_file(path: Path) -> str:
    """delimited, json or parquet, by the name; case does not matter. Raises DataError for another."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    kind = KINDS.get(suffixes[-1] if suffixes else "")
    if kind is None:
        allowed = f"{', '.join(KINDS)}, each also with {' or '.join(PACKED)}"
        step = "export it in one of these forms and name it so"
        raise DataError(path, f"its name says no known form; allowed: {allowed}", next_step=step)
    return kind


def text_of(path: Path, encoding: str) -> bytes:
    """The file's text, unpacked, as UTF-8 without a byte order mark. Raises DataError with line and byte."""
    content = _unpacked(path)
    if not content:
        raise DataError(path, "the file is empty", rows=0, next_step="export it again")
    if content.startswith((_ZIP, _PARQUET)):
        what = "parquet" if content.startswith(_PARQUET) else "a ZIP archive or an Excel workbook"
        raise DataError(path, f"is {what}, not text", next_step="name it so, or save it as CSV")
    if content.startswith(_UTF16) and encoding == "utf-8":
        encoding = "utf-16"
    content = content.removeprefix(_BOM)
    if encoding != "utf-8" or not content.isascii():
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            raise _undecoded(path, content, encoding, error) from error
        content = content if encoding == "utf-8" else text.encode()
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return content


def lines_in(content: bytes) -> int:
    """Lines of a text; the last needs no line end."""
    return content.count(b"\n") + (not content.endswith(b"\n"))


def _unpacked(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            return gzip.decompress(content)
        if content.startswith(_ZSTD):
            return pa.input_stream(path, compression="zstd").read()
    except (OSError, EOFError, zlib.error) as error:
        problem = f"cannot be read to its end: {error}"
        raise DataError(path, problem, next_step="export it again") from error
    return content


def _undecoded(path: Path, content: bytes, encoding: str, error: UnicodeDecodeError) -> DataError:
    before = content[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    line, byte = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    value = content[error.start : error.start + 1].hex()
    problem = f"line {line}, byte {byte}: 0x{value} is not {encoding.upper()}"
    step = "export it as UTF-8, or name its encoding in the mapping, such as encoding: windows-1252"
    return DataError(path, problem, next_step=step)
