"""Have the main thread call a function for another thread, as macOS opens cameras on the main thread alone."""

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from facemask.errors import InputError

Result = TypeVar("Result")
TICK = 0.2  # s between two checks whether the call is still wanted


class MainThreadCalls(Generic[Result]):
    """Functions that other threads want called, and their results."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Result], Future[Result]]] = queue.SimpleQueue()

    def call(self, function: Callable[[], Result], is_cancelled: Callable[[], bool]) -> Result:
        """Return what `function` returns, once the main thread has called it; raise what it raises.

        Raises InputError if `is_cancelled` before that.
        """
        future: Future[Result] = Future()
        self._calls.put((function, future))
        while True:
            try:
                return future.result(TICK)
            except TimeoutError:
                if future.done():
                    raise
                if is_cancelled() and future.cancel():
                    raise InputError("the main thread has ended") from None

    def run(self) -> None:
        """Call what is wanted, if there is anything; on the main thread."""
        while not self._calls.empty():
            function, future = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except BaseException as error:  # the other thread's to handle; Ctrl-C is this one's too
                future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
