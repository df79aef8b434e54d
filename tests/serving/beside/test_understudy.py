"""A release in the shadow: computed in every worker beside live answers, shown to nobody, in nobody's way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from shops import tiny_bundle
from shops.service import Service, running_service
from shops.storefront import act, release_of

from feature_repo.params import load
from monitoring.shadow.pairing import measure
from serving.beside import backstage, trial
from serving.beside.backstage import Asked, Backstage
from serving.beside.trial import ShadowParams
from serving.beside.understudy import SHADOWED
from serving.release import state, workers
from serving.release.state import Release, RolloutError

PARAMS = ShadowParams(1.0, 1.0, 0.5, True, 20, 30.0)
HERO = {"surface": "homepage_hero"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("shadow"), {"workers": 2}) as found:
        yield found


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def ask(service: Service, number: int, **fields: Any) -> dict[str, Any]:
    """Over a connection of its own: now this worker, now that."""
    body = HERO | {"session_id": f"s{number}"} | fields
    found: dict[str, Any] = httpx.post(f"{service.url}/v1/recommend", json=body, timeout=20).json()
    return found


def pairs(service: Service) -> list[dict[str, Any]]:
    with service.redis() as redis:
        return [orjson.loads(fields[b"pair"]) for _, fields in redis.xrange(SHADOWED)]


def made(service: Service, *names: str) -> float:
    """Lists of a stream and an outcome, over all workers."""
    text = httpx.get(f"{service.url}/metrics", timeout=10).text
    lines = [line for line in text.splitlines() if all(name in line for name in names)]
    return sum(float(line.rpartition(" ")[2]) for line in lines if line[0] != "#")


def shadowed(service: Service, bundle: Path) -> Release:
    release = release_of(service.home, bundle)
    with service.redis() as redis:
        trial.begin(redis, release, PARAMS, act())
    return release


def test_every_worker_makes_the_other_list_and_shows_its_own(service: Service) -> None:
    release = shadowed(service, tiny_bundle.make(service.home, seed=1))
    answers: dict[str, dict[str, Any]] = {}

    def both() -> bool:
        for number in range(10):
            answer = ask(service, len(answers) + number)
            answers[answer["request_id"]] = answer
        return len(pairs(service)) >= 40

    until(both)
    assert {answer["bundle"] for answer in answers.values()} == {service.bundle.name}
    for pair in pairs(service):
        shown = [item["item_id"] for item in answers[pair["request_id"]]["items"]]
        assert pair["shown"] == shown and pair["shadow"] == release.digest
        assert len(set(pair["list"])) == 12 and not pair["short"]
        assert not {"user_id", "session_id", "unit"} & set(pair)
    with service.redis() as redis:
        found = measure(redis, release.digest)
        assert not any(report.refused for report in workers.read(redis))
        assert len(workers.read(redis)) == 2
        ended = trial.end(redis, act())
        assert ended and ended.release == release and trial.end(redis, act()) is None
    assert found.failed == found.empty == 0 and 0 < found.alike["all surfaces"].overlap < 1
    assert made(service, "endcap_beside_total", SHADOWED, '"made"') >= 40


def test_after_its_end_nothing_is_made_and_its_memory_is_given_back(service: Service) -> None:
    def mapped() -> list[int]:
        """Of each worker, releases whose arrays it holds."""
        maps = [[one.path for one in worker.memory_maps()] for worker in service.workers()]
        return [len({Path(path).parent for path in paths if ".arrays/" in path}) for paths in maps]

    time.sleep(1.0)
    before = mapped()
    shadowed(service, tiny_bundle.make(service.home, n=90, seed=2))
    count = len(pairs(service))
    until(lambda: (ask(service, 1), len(pairs(service)) > count + 5)[1])
    assert mapped() == [count + 1 for count in before]
    with service.redis() as redis:
        trial.end(redis, act())
    until(lambda: mapped() == before)
    time.sleep(1.0)
    count = len(pairs(service))
    for number in range(20):
        ask(service, number)
    time.sleep(1.0)
    assert len(pairs(service)) == count
    assert trial.read(service.redis()) is None


def test_one_that_cannot_be_loaded_is_named_by_the_workers_and_the_champion_answers(service: Service) -> None:
    bundle = tiny_bundle.make(service.home, seed=3)
    (bundle / "ranker.txt").write_text("tree")
    release = shadowed(service, bundle)
    with service.redis() as redis:
        until(lambda: all(release.digest in one.refused for one in workers.read(redis)))
        assert ask(service, 1)["bundle"] == service.bundle.name
        trial.end(redis, act())
        assert measure(redis, release.digest).pairs == 0


def test_a_canary_and_the_champion_itself_have_no_shadow(service: Service) -> None:
    with service.redis() as redis:
        with pytest.raises(RolloutError, match="is the champion, and what is shown is its lists"):
            trial.begin(redis, release_of(service.home, service.bundle), PARAMS, act())
        other = release_of(service.home, tiny_bundle.make(service.home, seed=1))
        canary = state.start_canary(redis, state.present(redis), other, 50, "trial", act())
        with pytest.raises(RolloutError, match="is on trial at 50 %; `endcap rollout stop` before you put"):
            trial.begin(redis, other, PARAMS, act())
        state.rollback(redis, canary, act())


class Slow:
    """An actor that takes its time."""

    stream, share = "slow", 1.0

    def __init__(self) -> None:
        self.began: list[float] = []

    def pair(self, asked: Asked) -> dict[str, Any]:
        self.began.append(time.monotonic())
        time.sleep(0.02)
        return {"made": True}


def test_what_comes_in_while_it_is_busy_is_let_go_and_it_rests_three_times_as_long_as_it_works() -> None:
    slow, kept = Slow(), list[str]()
    stage = Backstage((slow,), lambda pair, stream: kept.append(stream))
    asked = Asked(*[None] * len(Asked._fields))  # type: ignore[arg-type]

    async def work() -> None:
        task = asyncio.create_task(stage.run(lambda: None, lambda error: None))
        for _ in range(100):
            stage.offer(asked)
        await asyncio.sleep(0.5)
        task.cancel()

    asyncio.run(work())
    # The last may have left the queue and not begun yet when all was called off.
    assert backstage.WAITING - len(stage._waiting) - len(slow.began) in (0, 1)
    assert 0 < len(kept) <= 0.5 / (0.02 * (1 + backstage.REST)) + 1


def test_the_section_of_the_project_asks_for_a_shadow() -> None:
    assert load("shadow", ShadowParams).required
