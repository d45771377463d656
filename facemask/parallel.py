"""Work on several things at once, and take the results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8  # bounds the memory
PREFETCH = 2  # items a worker that are begun or done before the first of them is taken
LONG_PREFETCH = 16  # where results are small: the others go on while one takes long


def thread_budget() -> tuple[int, int]:
    """Return how many workers to have, and how many threads each may compute with, so that they fill the cores.

    A network that works on several pictures at once with a thread each does more of them in a second than one that
    works on one with all threads (benchmarks/README.md).
    """
    cores = cv2.getNumberOfCPUs()  # that this process may use
    workers = min(cores, MOST_WORKERS)
    return workers, cores // workers


def prefetch_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    prefetch: int = PREFETCH,
    exclusive: Callable[[Item], bool] = lambda item: False,
) -> Iterator[tuple[Item, "Future[Result]"]]:
    """Call `function` on items in so many threads; yield each item with its finished future, in the order of items.

    `items` is walked in the caller's thread, at most `prefetch` items a worker further than what was yielded. An item that is
    to be worked on `exclusive` is begun when all before it are yielded, and the next after it is. When the caller stops or an
    item cannot be had, what is begun is finished and dropped, and no more is begun.
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
