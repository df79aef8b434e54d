"""The exception tree. Every message names the field, its value, what is allowed and what to do next.

EndcapError
├── ParamsError         params.yaml, shop selection, environment
├── DataError           a file of ours or of the shop: missing, truncated, wrong schema
├── BusyError           somebody else is at work where one at a time may be
├── EventError          one event refused at the door
├── FeatureError        a feature row that does not fit its definition
├── DefinitionError     features that are declared in a way that cannot work
├── UnavailableError    what cannot be answered, kept or reached now (HTTP 503)
├── RequestError        what a client sent (HTTP 4xx)               serving/errors.py
├── BundleError         a release that must not be served           serving/errors.py
├── RulesError          merchandising rules that are wrong          serving/rules/faults.py
├── RulesConflict       somebody else changed the rules first       serving/rules/published.py
├── NoSuchVersion       a version of the rules that is not kept     serving/rules/published.py
├── FlagsError          experiments that are wrong                  serving/flags/flag_document.py
├── FlagsConflict       somebody else changed the experiments first serving/flags/flag_versions.py
├── RolloutError        a change that the rollout's state forbids   serving/release/state.py
│   └── RolloutConflict somebody else changed it first              serving/release/state.py
├── ErrandError         a person's wish that cannot be run now      monitoring/erasing/wishes.py
├── ReceiptError        a receipt that is not there                 monitoring/erasing/filed.py
├── MetricError         lists that a metric is not defined for      pipelines/protocol/metrics.py
├── GateError           a release that must not be promoted         pipelines/gates/bar.py
├── ReleaseError        a promotion or rollback that cannot be made pipelines/release/aliases.py
├── RegistryError       MLflow's store cannot be read or written    pipelines/release/registry.py
├── RetrainError        nothing was begun: another runs             pipelines/retrain/retrain.py
├── CompareError        two things that cannot be compared          pipelines/compare/sides.py
├── PlanError           an experiment that cannot be planned        pipelines/experiment/prospects.py
├── EraseError          rows of an erased person that come again    pipelines/persons/erase.py
├── StuckError          a task of the stream that no longer beats   pipelines/stream/consumer.py
├── StackError          a process that does not start or stop       pipelines/local/process.py
├── StepError           the demo did not end as it promises         pipelines/local/story.py
├── Usage               options that do not go together             pipelines/rules/rules.py
└── Usage               the same                                    pipelines/experiment/experiment.py
"""

from pathlib import Path

import orjson


class EndcapError(Exception):
    """Root of everything Endcap raises on purpose; the command line prints it without a traceback."""


class ParamsError(EndcapError):
    """A constant is missing, unknown or of the wrong type."""


class DataError(EndcapError):
    """A data file cannot be used.

    >>> str(DataError("raw/items.parquet", "column 'price' is missing", rows=3, next_step="export it again"))
    "raw/items.parquet: column 'price' is missing (3 rows read). Next: export it again."
    """

    def __init__(self, file: str | Path, problem: str, *, rows: int | None = None, next_step: str) -> None:
        self.file, self.problem, self.rows = str(file), problem, rows
        read = "" if rows is None else f" ({rows} rows read)"
        told = f"{file}: {problem}{read}. Next: {next_step}."
        # One line, whatever names and cells of the shop stand in it.
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in told))


class BusyError(EndcapError):
    """Somebody else is at work where one at a time may be."""


class EventError(EndcapError):
    """One event is refused; `field` is the first field that is wrong."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field}: {shorten(value)} is not allowed; allowed: {allowed}")


class UnavailableError(EndcapError):
    """The honest answer when a write cannot be kept, no release is loaded yet or Redis is away.

    Over HTTP it is a 503 with Retry-After.
    """

    def __init__(self, what: str, retry_after_s: int = 1, next_step: str | None = None) -> None:
        self.what, self.retry_after_s = what, retry_after_s
        self.next_step = next_step or f"try again in {retry_after_s} s"
        super().__init__(f"{what}. Next: {self.next_step}.")

    def body(self) -> bytes:
        return orjson.dumps({"error": {"reason": self.what, "next": self.next_step}})


class FeatureError(EndcapError):
    """A stored feature row does not fit the fold that declares it."""


class DefinitionError(EndcapError):
    """The declared features cannot work together; raised at import, before anything runs on them."""


def shorten(value: object, limit: int = 80) -> str:
    """At most `limit` printable characters of a value that came from outside."""
    text = ascii(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
