import threading
import time

import pytest

from facemask.parallel import prefetch_map, thread_budget


def test_thread_budget(monkeypatch):
    for cores, expected in ((1, (1, 1)), (2, (2, 1)), (8, (8, 1)), (12, (8, 1)), (64, (8, 8))):
        monkeypatch.setattr("cv2.getNumberOfCPUs", lambda cores=cores: cores)
        assert thread_budget() == expected


@pytest.mark.parametrize("workers", [1, 3])
def test_prefetch_map_keeps_the_order(workers):
    def slow_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number * number

    assert [(item, future.result()) for item, future in prefetch_map(slow_first, range(20), workers)] == [
        (number, number * number) for number in range(20)
    ]


def test_prefetch_map_of_nothing():
    assert list(prefetch_map(str, [], 2)) == []


def test_prefetch_map_runs_several_at_once():
    both = threading.Barrier(2, timeout=10)  # passed by two together, or broken
    assert sorted(future.result() for _, future in prefetch_map(lambda item: both.wait(), range(4), 2)) == [0, 0, 1, 1]


def test_prefetch_map_is_bounded():
    walked, go_on = [], threading.Event()

    def items():
        for number in range(1000):
            walked.append(number)
            yield number

    threading.Timer(0.3, go_on.set).start()
    results = prefetch_map(lambda number: number or go_on.wait(10), items(), 2, 3)
    assert next(results)[0] == 0  # which has held up the others
    assert len(walked) == 2 * 3
    results.close()
    assert len(walked) == 2 * 3


def test_prefetch_map_keeps_an_error_with_its_item():
    def fails_at_two(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    results = []
    for number, future in prefetch_map(fails_at_two, range(5), 2):
        results.append(future.exception() if number == 2 else future.result())
    assert results[:2] + results[3:] == [0, 1, 3, 4]
    assert str(results[2]) == "two"


def test_prefetch_map_yields_early_results():
    taken, taken_before = [], []

    def camera():
        for number in range(4):
            taken_before.append(len(taken))
            yield number
            time.sleep(0.2)  # by then the frame is done

    for number, _ in prefetch_map(str, camera(), 4):
        taken.append(number)
    assert taken == [0, 1, 2, 3]
    assert taken_before[2] >= 1 and taken_before[3] >= 2


@pytest.mark.parametrize("workers", [1, 3])
def test_prefetch_map_runs_exclusive_items_alone(workers):
    """Items that are to be worked on alone are, also while the caller has the result in hand; the order stays."""
    running, together, results = [], {}, []

    def work(number: int) -> int:
        running.append(number)
        time.sleep(0.01)
        together[number] = list(running)
        running.remove(number)
        return number

    for number, future in prefetch_map(work, range(12), workers, exclusive=lambda number: number in (0, 5, 6, 11)):
        assert future.result() == number
        if number in (0, 5, 6, 11):
            time.sleep(0.03)
            assert max(together) == number
        results.append(number)
    assert results == list(range(12))
    assert all(together[number] == [number] for number in (0, 5, 6, 11))
