"""Processes that simulate, each ``python -m apbatch.sim.chunk_processes``: chunk numbers go in, answers come out.

Not `multiprocessing`: its new processes run the caller's main script again, which a job script may not stand, and
outlive a parent that was killed. Here a process ends with the pipe, or at once when its parent is gone.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from apbatch.errors import ApbatchError
from apbatch.sim.chunks import ProductionPlan, Worker
from apbatch.sim.interactions import package_path


class _WorkerProcess:
    """One process, from the side of the parent."""

    def __init__(self, plan: ProductionPlan) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "apbatch.sim.chunk_processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": package_path()},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.questions, self.answers = self.process.stdin, self.process.stdout
        pickle.dump((plan, os.getpid()), self.questions)
        self.questions.flush()

    def make(self, chunk: int) -> int:
        """Have a chunk made and return the number of its showers."""
        try:
            self.questions.write(b"%d\n" % chunk)
            self.questions.flush()
            line = self.answers.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise ApbatchError("a simulating process was ended", remedy="start again: it goes on from there")
        answer = json.loads(line)
        if "error" in answer:
            raise ApbatchError(answer["error"])
        return int(answer["showers"])

    def end(self) -> None:
        """Let the process finish what it has in hand and wait for its end."""
        with suppress(BrokenPipeError):
            self.questions.close()
        self.process.wait()
        self.answers.close()


def make_chunks(plan: ProductionPlan, chunks: list[int], processes: int) -> Iterator[int]:
    """Make chunks, in any order, in some processes; yield the number of showers of each as it is done.

    Parameters
    ----------
    plan : ProductionPlan
    chunks : list of int
        Numbers of chunks.
    processes : int

    Raises
    ------
    ApbatchError
        The first failure of any process; the others finish the chunk they have in hand.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for chunk in chunks:
        waiting.put(chunk)
    done: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def lead(process: _WorkerProcess) -> None:
        try:
            while not stopped.is_set():
                try:
                    chunk = waiting.get_nowait()
                except queue.Empty:
                    break
                done.put(process.make(chunk))
        except BaseException as error:
            done.put(error)
        finally:
            process.end()
            done.put(None)

    threads = [
        threading.Thread(target=lead, args=(_WorkerProcess(plan),), daemon=True)
        for _ in range(min(processes, len(chunks)))
    ]
    for thread in threads:
        thread.start()
    at_work = len(threads)
    try:
        while at_work:
            result = done.get()
            if result is None:
                at_work -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def main() -> None:
    """Answer the parent: a plan first, then one chunk a line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; chunks in hand are finished
    # Whatever a library prints must not get among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    plan, parent = pickle.load(sys.stdin.buffer)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    worker: Worker | None = None
    for line in sys.stdin.buffer:
        try:
            worker = worker or Worker(plan)
            answer: dict[str, object] = {"showers": worker.make(int(line))}
        except (ApbatchError, OSError) as error:
            answer = {"error": str(error)}
        except Exception as error:  # told by the parent, which alone speaks to the user
            answer = {"error": f"unexpected {type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
