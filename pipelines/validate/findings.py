"""Great Expectations' results as plain values and plain words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One expectation and what was found; `column` is null for one about the whole table."""

    expectation: str
    column: str | None
    limits: Mapping[str, Any]  # the expectation's own arguments
    success: bool
    rows_checked: int | None = None  # without nulls, except where nulls are what is counted
    rows_failing: int | None = None
    examples: tuple[Any, ...] = ()
    observed: Any = None
    error: str | None = None  # why it could not be checked

    @staticmethod
    def of(result: Mapping[str, Any]) -> Finding:
        """From GX's result as JSON values; ids and times of the run are left behind."""
        config, found = result["expectation_config"], result["result"]
        skipped = ("column", "batch_id")
        limits = {
            name: _plain(value)
            for name, value in config["kwargs"].items()
            if name not in skipped and value is not None
        }
        checked = found.get("element_count")
        if checked is not None:
            checked -= found.get("missing_count") or 0
        return Finding(
            config["type"],
            config["kwargs"].get("column"),
            limits,
            bool(result["success"]),
            checked,
            found.get("unexpected_count"),
            tuple(_plain(value) for value in (found.get("partial_unexpected_list") or [])[:_EXAMPLES]),
            _plain(found.get("observed_value")),
            _error(result.get("exception_info")),
        )

    def in_words(self, table: str) -> str:
        """One line for the terminal.

        >>> Finding("expect_column_values_to_not_be_null", "item_id", {}, False, 200, 3).in_words("items")
        'items.item_id: 3 of 200 rows (1.50%) are null'
        """
        place = table if self.column is None else f"{table}.{self.column}"
        if self.error is not None:
            return f"{place}: could not be checked: {self.error}"
        if self.rows_failing is None or self.rows_checked is None:
            return f"{place}: {self._table_words()}"
        share = self.rows_failing / self.rows_checked if self.rows_checked else 0.0
        words = f"{self.rows_failing:,} of {self.rows_checked:,} rows ({share:.2%}) {self._row_words()}"
        if "mostly" in self.limits and self.limits["mostly"] < 1:
            words += f", at most {1 - self.limits['mostly']:.2%} may be"
        shown = ", ".join(repr(value) for value in self.examples if value is not None)
        return f"{place}: {words}" + (f"; for example {shown}" if shown else "")

    def _row_words(self) -> str:
        """What is wrong with a row, by expectation."""
        values, columns = self.limits.get("value_set", ()), self.limits.get("column_list", ())
        return {
            "expect_column_values_to_not_be_null": "are null",
            "expect_column_values_to_be_unique": "are not unique",
            "expect_compound_columns_to_be_unique": f"repeat {' and '.join(columns)}",
            "expect_column_values_to_be_in_set": "are of no item in the catalogue"
            if values == [True]
            else f"are not {' or '.join(map(str, values))}",
            "expect_column_values_to_be_between": f"are not {self._range()}",
        }.get(self.expectation, f"fail {self.expectation}")

    def _table_words(self) -> str:
        """What is wrong with a column or table as a whole, by expectation."""
        found, values = self.observed, ", ".join(map(str, self.limits.get("value_set", ())))
        return {
            "expect_column_to_exist": "the column is missing",
            "expect_table_row_count_to_be_between": f"{found} rows, not {self._range()}",
            "expect_column_min_to_be_between": f"the lowest value is {found}, not {self._range()}",
            "expect_column_max_to_be_between": f"the highest value is {found}, not {self._range()}",
            "expect_column_unique_value_count_to_be_between": f"{found} values, not {self._range()}",
            "expect_column_distinct_values_to_contain_set": f"values are {found}; must contain {values}",
            "expect_column_distinct_values_to_equal_set": f"values are {found}; must be {values}",
        }.get(self.expectation, f"{self.expectation} failed with {found}")

    def _range(self) -> str:
        low, high = self.limits.get("min_value"), self.limits.get("max_value")
        if low is None:
            return f"at most {_short(high)}"
        return f"at least {_short(low)}" if high is None else f"from {_short(low)} to {_short(high)}"


@dataclass(frozen=True)
class TableResult:
    """A suite on one table: `rows` of its `total` were checked (a sample when fewer)."""

    rows: int
    total: int
    findings: tuple[Finding, ...] = field(default=())

    @staticmethod
    def of(results: Iterable[Mapping[str, Any]], rows: int, total: int) -> TableResult:
        """From GX's results, put in an order of our own."""
        return TableResult(rows, total, tuple(sorted(map(Finding.of, results), key=_order)))

    @property
    def success(self) -> bool:
        return all(finding.success for finding in self.findings)

    @property
    def held(self) -> int:
        """Expectations that hold."""
        return sum(finding.success for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without ids or times."""
        return {"success": self.success, **asdict(self)}

    def failures(self, table: str) -> list[str]:
        """One line per failed expectation; a missing column is told once, not by all that needed it."""
        failed = [finding for finding in self.findings if not finding.success]
        missing = {f.column for f in failed if f.expectation == "expect_column_to_exist"}
        told = [f for f in failed if f.expectation == "expect_column_to_exist" or f.column not in missing]
        return [finding.in_words(table) for finding in told]


def _order(finding: Finding) -> tuple[str, str, str]:
    return finding.column or "", finding.expectation, repr(finding.limits)


def _plain(value: Any) -> Any:
    """Strict JSON: NaN and infinities as text, which JSON has no numbers for."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _short(limit: Any) -> str:
    return f"{limit:,.6g}" if isinstance(limit, float) else str(limit)


def _error(info: Mapping[str, Any] | None) -> str | None:
    """First message of GX's exception info, which nests by metric."""
    if not info:
        return None
    for entry in [info, *info.values()]:
        if isinstance(entry, Mapping) and entry.get("raised_exception"):
            return str(entry.get("exception_message")).splitlines()[0]
    return None
