"""The rung follows from the request's age and from what is owed to those before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feature_repo.params import load
from serving.cascade.queueing import ARRIVED, Admission, Cascade, Rung

PARAMS = load("cascade", Cascade)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def entered(admission: Admission, clock: Clock, age_ms: float = 0.0) -> Rung:
    ARRIVED.set(clock.now - age_ms / 1000)
    return admission.enter().rung


def test_an_idle_worker_answers_live_whatever_a_list_costs() -> None:
    clock = Clock()
    admission = Admission(PARAMS, clock)
    for _ in range(500):
        admission.paid(Rung.LIVE, 5.0)
    for _ in range(3):
        ARRIVED.set(clock.now)
        place = admission.enter(lists=8)
        assert place.rung is Rung.LIVE
        admission.leave(place)
        clock.now += 1


def test_the_time_spent_in_the_queue_counts() -> None:
    clock = Clock()
    rungs = [entered(Admission(PARAMS, clock), clock, age_ms) for age_ms in (0, 19, 21, 25, 30, 33, 5000)]
    bottom = Rung.BESTSELLERS
    assert rungs == [Rung.LIVE, Rung.LIVE, Rung.VECTOR, Rung.SHOPPER, Rung.SHARED, bottom, bottom]


def test_a_burst_goes_down_rung_by_rung_and_what_is_owed_stays_bounded() -> None:
    clock = Clock()
    admission = Admission(PARAMS, clock)
    rungs = [entered(admission, clock) for _ in range(100)]
    assert rungs == sorted(rungs) and set(rungs) == set(Rung)
    assert 5 <= rungs.count(Rung.LIVE) <= 12


def test_a_queue_that_stands_is_kept_shorter_than_a_burst_may_be() -> None:
    clock = Clock()
    admission = Admission(PARAMS, clock)
    burst = sum(entered(admission, clock) is Rung.LIVE for _ in range(40))
    admission = Admission(PARAMS, clock)
    ARRIVED.set(clock.now)
    first = admission.enter()
    clock.now += 0.001 + PARAMS.standing_ms / 1000  # it has not been empty since
    standing = sum(entered(admission, clock) is Rung.LIVE for _ in range(40))
    assert 0 < standing < burst
    admission.leave(first)


@given(
    steps=st.lists(st.tuples(st.floats(0, 0.05), st.booleans(), st.floats(0, 0.2)), max_size=80),
)
def test_when_all_have_left_nothing_is_owed_and_the_next_is_answered_live(
    steps: list[tuple[float, bool, float]],
) -> None:
    clock = Clock()
    admission, inside = Admission(PARAMS, clock), []
    for pause, goes, seconds in steps:
        clock.now += pause
        ARRIVED.set(clock.now - seconds)
        inside.append(admission.enter())
        if goes:
            place = inside.pop(0)
            admission.paid(place.rung, seconds)
            admission.leave(place)
    for place in inside:
        admission.leave(place)
    assert entered(admission, clock) is Rung.LIVE
