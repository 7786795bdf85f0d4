"""Work done ahead by a thread: what feeds a network is ready when the network wants it."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import Queue
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int = 1) -> Generator[T, None, None]:
    """Yield items that a thread takes, `depth` of them before they are asked for; its error is raised here.

    A caller that stops early closes the generator, and with it the thread ends.
    """
    queue: Queue[tuple[T] | BaseException | None] = Queue(maxsize=depth)
    stop = threading.Event()

    def take() -> None:
        end: BaseException | None = None
        try:
            for item in items:
                if stop.is_set():
                    return
                queue.put((item,))
        except BaseException as error:  # whatever it is, the one who waits must hear of it
            end = error
        if not stop.is_set():
            queue.put(end)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        while (entry := queue.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        stop.set()
        while not queue.empty():  # a thread that waits to put its item down can go on, and sees that it is over
            queue.get_nowait()
