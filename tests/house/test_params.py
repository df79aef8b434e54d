"""params.yaml is the only home of constants: strict in types, complete in comments, right about the shops."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import yaml

from feature_repo import params
from feature_repo.errors import DataError, ParamsError
from feature_repo.ports import stack_params
from pipelines.ingest.shop import choose

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Kiln:
    degrees: float
    shelves: int
    name: str | None


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with the real params.yaml and a section `kiln` behind it."""
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text + "\nkiln: {degrees: 900, shelves: 3, name: null}\n")
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    return tmp_path


def rewrite(home: Path, section: str) -> None:
    (home / "params.yaml").write_text(section)


def test_a_section_becomes_a_dataclass_and_ints_may_stand_for_floats(home: Path) -> None:
    assert params.load("kiln", Kiln) == Kiln(900.0, 3, None)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            "kiln: {degrees: 900, shelves: 3, name: a, colour: red}",
            "kiln.colour: unknown key; allowed: degrees",
        ),
        ("kiln: {degrees: 900, shelves: 3}", "kiln.name: missing"),
        ("kiln: {degrees: 900, shelves: 3.5, name: a}", "kiln.shelves: 3.5 is not"),
        ("kiln: {degrees: 900, shelves: true, name: a}", "kiln.shelves: True is not"),
        ("kiln: {degrees: '900', shelves: 3, name: a}", "kiln.degrees: '900' is not"),
        ("kiln: 7", "kiln: 7 is not a section"),
        ("oven: {}", "section 'kiln' is missing; sections are oven"),
    ],
)
def test_a_wrong_section_is_refused_with_field_and_value(home: Path, section: str, message: str) -> None:
    rewrite(home, section)
    with pytest.raises(ParamsError, match=re.escape(message)):
        params.load("kiln", Kiln)


def test_outside_a_project_the_message_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENDCAP_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match="set ENDCAP_HOME"):
        params.root()


def test_choosing_a_shop_makes_it_active_with_its_instants_intact(home: Path) -> None:
    (home / "elsewhere").mkdir()
    choose("merch", home / "elsewhere")
    active = params.shop()
    assert (active.name, active.adapter, active.source) == ("merch", "ga360", "elsewhere")
    assert active.test_from == datetime(2016, 10, 17, tzinfo=UTC)
    assert active.run_dir() == home / "run" / "merch"


def test_a_shop_without_its_data_is_refused_and_the_former_one_stays_active(home: Path) -> None:
    choose("simulated")
    with pytest.raises(DataError, match=r"gone: there is no such folder.*DATA_DIR=DIR"):
        choose("merch", home / "gone")
    with pytest.raises(ParamsError, match="'nope' is unknown; allowed: simulated, merch"):
        choose("nope")
    assert params.shop().name == "simulated"


def test_the_committed_shop_says_the_same_as_its_section() -> None:
    values = yaml.safe_load((ROOT / "data" / "shop.yaml").read_text())
    assert values.pop(params.FOR_DVC) == {
        "mapping": "pipelines/ingest/adapters/mapping.py",
        "simulates": ["simulated"],
    }
    written = params._build(values, params.Shop, "shop.yaml")
    section = yaml.safe_load((ROOT / "params.yaml").read_text())["shops"][written.name]
    assert (
        params._build({"name": written.name, **section, "source": written.source}, params.Shop, "x")
        == written
    )


def test_time_is_cut_in_order_in_every_shop() -> None:
    for name in yaml.safe_load((ROOT / "params.yaml").read_text())["shops"]:
        cut = params.named_shop(name)
        assert cut.rank_from < cut.valid_from < cut.test_from


def test_a_port_from_the_environment_wins_and_must_be_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_REDIS_PORT", "7001")
    assert stack_params().redis_port == 7001
    monkeypatch.setenv("ENDCAP_REDIS_PORT", "99999")
    with pytest.raises(
        ParamsError, match="ENDCAP_REDIS_PORT: '99999' is not allowed; allowed: a port from 1"
    ):
        stack_params()


def test_instants_are_quoted_because_dvc_refuses_others() -> None:
    def walk(value: object, where: str) -> list[str]:
        if isinstance(value, dict):
            return [found for key, v in value.items() for found in walk(v, f"{where}.{key}")]
        return [where] if isinstance(value, date) else []

    assert walk(yaml.safe_load((ROOT / "params.yaml").read_text()), "params") == []


def test_every_section_says_what_it_is_for() -> None:
    lines = (ROOT / "params.yaml").read_text().splitlines()
    sections = [(i, line) for i, line in enumerate(lines) if re.match(r"[a-z_]+:", line)]
    assert len(sections) >= 3
    silent = [line for i, line in sections if "#" not in line and not (i and lines[i - 1].startswith("#"))]
    assert not silent
