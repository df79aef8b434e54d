"""Dead letters: shown with their reasons, and applied once when they are sent again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shops.stream import LIVE, assert_same, consumer, folded, open_shop, post, rows

from feature_repo.eventlog.keys import DEAD, stream_key
from feature_repo.features.stored import SESSION_CONTEXT
from feature_repo.folds.fold import Fold
from pipelines.stream.dead import dead_letters, main

BROKEN = "session 1"


@pytest.fixture
def redis(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from open_shop(tmp_path, monkeypatch, redis_url)


def test_what_a_broken_fold_refused_counts_once_after_it_is_mended(
    redis: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    real = type(SESSION_CONTEXT).step

    def breaks(self: Fold, state: Any, event: Any) -> Any:
        if self is SESSION_CONTEXT and event.session_id == BROKEN:
            raise RuntimeError("a bug in the fold")
        return real(self, state, event)  # type: ignore[arg-type]

    post(redis, LIVE[:200])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(SESSION_CONTEXT), "step", breaks)
        consumer().run(until_empty=True)
    refused = len(dead_letters(redis))
    assert refused == sum(
        e["session_id"] == BROKEN and e["type"] in SESSION_CONTEXT.types for e in LIVE[:200]
    )
    main(newest=1)
    told = capsys.readouterr().out
    assert f"{refused} events could not be applied" in told and "RuntimeError in session_context" in told
    main(retry=True, newest=0)
    assert f"{refused} were written to the log again" in capsys.readouterr().out
    assert not dead_letters(redis)
    consumer().run(until_empty=True)
    assert_same(rows(redis), folded(LIVE[:200]))


def test_what_fails_again_comes_back_with_its_reason(redis: Any, capsys: pytest.CaptureFixture[str]) -> None:
    redis.xadd(stream_key(1), {"event": b"[1]"})
    consumer().run(until_empty=True)
    main(retry=True)
    consumer().run(until_empty=True)
    (letter,) = dead_letters(redis)
    assert (letter.partition, letter.raw, letter.group) == (1, b"[1]", "visitors")
    assert letter.reason.startswith("event: [1]")
    assert "1 events could not be applied" in capsys.readouterr().out
    redis.delete(DEAD)
    main()
    assert capsys.readouterr().out == "no event was refused by a fold\n"
