"""The timers in deploy/ start jobs that exist, and each timer has its service."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest

from pipelines import cli

UNITS = Path(__file__).resolve().parents[3] / "deploy/systemd"


@pytest.mark.parametrize("timer", sorted(UNITS.glob("*.timer")), ids=lambda timer: timer.stem)
def test_a_timer_starts_a_job_that_exists_and_ends(timer: Path) -> None:
    unit, service = ConfigParser(), ConfigParser()
    unit.read(timer)
    service.read(timer.with_suffix(".service"))
    command = service["Service"]["ExecStart"].split()
    assert command[0].endswith("/endcap") and command[1] in cli.places() and timer.stem.endswith(command[1])
    assert unit["Timer"]["OnCalendar"] and service["Service"]["TimeoutStartSec"]
    assert service["Service"]["Type"] == "oneshot" and command[1] not in cli.FOREGROUND
