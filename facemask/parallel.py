"""Process several items at once, and take the results in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS = 8  # bounds the memory
PREFETCH = 2  # items per worker that are started before the first of them is taken
LONG_PREFETCH = 16  # for small results: the other workers continue while one item takes long


def thread_budget() -> tuple[int, int]:
    """Return the number of workers, and of threads that each computes with, so that they fill the cores.

    Several images at once with one thread each take less time than one after the other with all threads
    (benchmarks/README.md).
    """
    cores = cv2.getNumberOfCPUs()  # that this process may use
    workers = min(cores, MAX_WORKERS)
    return workers, cores // workers


def prefetch_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    prefetch: int = PREFETCH,
    exclusive: Callable[[Item], bool] = lambda item: False,
) -> Generator[tuple[Item, "Future[Result]"], None, None]:
    """Call `function` on items in `workers` threads; yield each item with its finished future, in the order of items.

    `items` is iterated in the caller's thread, at most `prefetch` items per worker ahead of the one yielded. An
    `exclusive` item starts when all before it were yielded, and the next one when it was. When the caller stops or `items`
    raises an error, items that have started are finished and dropped, and no more start.
    """
    pending: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="worker") as pool:
        try:
            for item in items:
                is_exclusive = exclusive(item)
                while pending and is_exclusive:
                    yield _finished(pending)
                pending.append((item, pool.submit(function, item)))
                while pending and (is_exclusive or pending[0][1].done() or len(pending) >= prefetch * workers):
                    yield _finished(pending)
            while pending:
                yield _finished(pending)
        finally:
            pool.shutdown(cancel_futures=True)


def _finished(pending: "deque[tuple[Item, Future[Result]]]") -> tuple[Item, "Future[Result]"]:
    item, future = pending.popleft()
    future.exception()  # waits
    return item, future
