"""Health means progress."""

from datetime import timedelta

from shared.health import Health, Loop


class Clock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_within_its_limit_is_well() -> None:
    clock = Clock()
    loop = Loop("relay", timedelta(seconds=30), clock)
    clock.now += 30
    assert loop.problem is None


def test_a_loop_past_its_limit_says_for_how_long() -> None:
    clock = Clock()
    loop = Loop("relay", timedelta(seconds=30), clock)
    clock.now += 31
    assert loop.problem == "relay has not made progress for 31 s (limit 30 s)"


def test_a_beat_makes_it_well_again() -> None:
    clock = Clock()
    loop = Loop("relay", timedelta(seconds=30), clock)
    clock.now += 100
    loop.beat()
    assert loop.problem is None
    assert loop.age == timedelta(0)


def test_a_process_is_as_ill_as_its_worst_part() -> None:
    clock = Clock()
    health = Health()
    health.loops += [Loop("sweep", timedelta(seconds=1), clock), Loop("relay", timedelta(9), clock)]
    health.checks += [lambda: None, lambda: "the consumer has stopped"]
    clock.now += 5
    assert health.problems() == [
        "sweep has not made progress for 5 s (limit 1 s)",
        "the consumer has stopped",
    ]


def test_a_loop_that_fails_at_each_turn_is_not_well_however_often_it_begins_one() -> None:
    clock = Clock()
    loop = Loop("sweep", timedelta(seconds=30), clock)
    for _ in range(40):
        loop.beat()
        loop.failed("LockNotAvailableError 55P03")
        clock.now += 1
    assert loop.problem == (
        "sweep has not made progress for 40 s (limit 30 s): LockNotAvailableError 55P03"
    )
    # It is at work all the same: a new process would fail like this one.
    assert loop.silence == timedelta(seconds=1)


def test_a_turn_that_goes_through_makes_a_loop_well_again() -> None:
    clock = Clock()
    loop = Loop("sweep", timedelta(seconds=30), clock)
    loop.failed("TimeoutError")
    clock.now += 31
    loop.beat()
    assert loop.problem is not None, "it has only begun"
    loop.beat()
    assert loop.problem is None
    assert loop.error is None
