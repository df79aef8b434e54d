"""A command that says "done" is right: workers report what they serve, and nothing is pointed to unseen."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from shops.release import ACT, write_candidate
from shops.stand import damaged, ended

from feature_repo.places import DATA
from serving.release import state, workers
from serving.release.state import Release

if TYPE_CHECKING:
    from shops.stand import Stand

pytest_plugins = ("shops.stand",)

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def releases(stand: Stand) -> tuple[Release, Release]:
    """`old` was replaced by `new`, which serves at two workers."""
    old = stand.release("old")
    stand.serve()
    return old, stand.release("new", "--direct")


def test_a_promotion_is_done_when_every_worker_serves_it(
    stand: Stand, releases: tuple[Release, Release]
) -> None:
    _, new = releases
    assert stand.answering() == {new.digest}
    assert {report.champion for report in workers.read(stand.redis)} == {new.digest}
    assert "served by 2 of 2 workers" in stand.endcap("rollback", "--to", new.digest)
    told = stand.endcap("status", status=1)  # no console runs here
    assert f"workers  2 of 2 serve {new.digest} (version {stand.state().version}) since 20" in told


def test_a_damaged_release_is_not_gone_back_to(stand: Stand, releases: tuple[Release, Release]) -> None:
    old, new = releases
    before = stand.state()
    for name in ("ease.npz", "manifest.json", "ranker.txt"):
        with damaged(stand.home / old.path / name):
            told = stand.endcap("rollback", status=1)
        assert name in told and "nothing was changed" in told and new.digest in told
    assert stand.state() == before and stand.answering() == {new.digest}


def test_three_rollbacks_at_once_end_where_one_does_and_a_fourth_says_so(
    stand: Stand, releases: tuple[Release, Release]
) -> None:
    old, new = releases
    version = stand.state().version
    ended([stand.start("rollback") for _ in range(3)])
    assert (stand.state().champion, stand.state().version) == (old, version + 1)
    assert stand.answering() == {old.digest}
    assert f"{old.digest} serves already" in stand.endcap("rollback")
    assert stand.state().version == version + 1
    assert f"{old.digest} -> {new.digest}" in stand.endcap("rollback", "--to", new.digest[:6])
    assert stand.answering() == {new.digest}
    assert f"{new.digest} -> {old.digest}" in stand.endcap("rollback")  # forward was no rollback
    stand.endcap("rollback", "--to", new.digest)


def test_an_unknown_target_is_refused_with_what_is_installed(
    stand: Stand, releases: tuple[Release, Release]
) -> None:
    told = stand.endcap("rollback", "--to", "zz", status=1)
    assert "no such release is installed" in told and all(release.digest in told for release in releases)


def test_a_canary_is_started_advanced_and_stopped_once(
    stand: Stand, releases: tuple[Release, Release]
) -> None:
    trial = stand.release("trial")
    with damaged(stand.home / trial.path / "covisit.npz"):
        assert "covisit.npz" in stand.endcap("rollout", "start", status=1)
    assert stand.state().challenger is None
    for told in ended([stand.start("rollout", "start") for _ in range(2)]):
        assert "served by 2 of 2 workers" in told
    assert {report.challenger for report in workers.read(stand.redis)} == {trial.digest}
    with damaged(stand.home / trial.path / "rails.json"):
        assert "rails.json" in stand.endcap("rollout", "advance", status=1)
    assert stand.state().percent == 10
    for _ in range(2):
        stand.endcap("rollout", "advance", "--to", "50")
    assert "70 is not the next step; allowed: 50, 100" in stand.endcap(
        "rollout", "advance", "--to", "70", status=1
    )
    assert stand.state().percent == 50
    ended([stand.start("rollout", "stop") for _ in range(2)])
    stand.endcap("rollout", "stop")
    assert stand.state().challenger is None and stand.answering() == {releases[1].digest}


def test_a_lost_mlflow_store_is_told_and_repaired_by_the_command_that_is_named(
    stand: Stand, releases: tuple[Release, Release]
) -> None:
    (store,) = stand.home.glob("run/*/mlflow.db")
    store.unlink()
    (told,) = ended([stand.start("rollback")], 1)
    assert "the store was lost" in told and "`endcap promote --repair`" in told
    assert stand.answering() == {releases[0].digest}  # what serves comes first
    (told,) = ended([stand.start("promote")], 1)
    assert "the store was lost" in told
    assert releases[0].digest in ended([stand.start("promote", "--repair")])[0]
    ended([stand.start("rollback", "--to", releases[1].digest)])


def test_a_service_that_lacks_the_bundle_goes_on_and_the_command_says_who_refused(
    stand: Stand, releases: tuple[Release, Release], tmp_path: Path
) -> None:
    _, new = releases
    elsewhere = tmp_path / "elsewhere"  # another machine, to which nobody copied the next bundle
    shutil.copytree(stand.home / DATA / "bundles", elsewhere / DATA / "bundles")
    shutil.copy(stand.home / "params.yaml", elsewhere)
    stand.serve(elsewhere)
    before = stand.state().version
    shutil.rmtree(elsewhere / releases[0].path)
    told = stand.endcap("rollback", status=1)
    assert stand.state().version == before + 1
    assert "0 of 2 serve version" in told and f"serves {new.digest}" in told
    assert f"refuses {releases[0].digest}: " in told and "manifest.json" in told
    assert stand.answering() == {new.digest}
    assert f"refuses {releases[0].digest}" in stand.endcap("status", status=1)
    stand.close()
    assert "there is nothing to wait for" in stand.endcap("rollback", "--to", new.digest)


def test_another_shops_bundle_is_refused_by_name(stand: Stand, releases: tuple[Release, Release]) -> None:
    write_candidate(stand.home, "theirs", shop="merch")
    told = stand.endcap("promote", "--direct", status=1)
    assert "shop is 'merch', expected 'simulated'" in told
    theirs = next(
        path
        for path in (stand.home / "written").iterdir()
        if '"merch"' in (path / "manifest.json").read_text()
    )
    path = Path(shutil.copytree(theirs, stand.home / DATA / "bundles" / theirs.name))
    state.install(stand.redis, Release(path.name, str(path.relative_to(stand.home))), ACT)
    stand.serve()
    assert stand.answering() == {releases[1].digest}
    assert "shop is 'merch'" in stand.endcap("status", status=1)
