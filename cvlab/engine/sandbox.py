"""Run cells of which some come from strangers, in a kernel that is watched: behind `python -m cvlab grade`.

`python -m cvlab.engine.sandbox` reads a job from its standard input and prints what came of it, both as JSON. Limits of
time, memory and output hold for all processes below the kernel. They keep one submission from harming the others; they
are no prison: the code runs as the user who started it. For strangers' code use a container as well.
"""

import contextlib
import ctypes
import json
import queue
import sys
import threading
import time
from collections.abc import Sequence

BOOKS_OWN = 64  # times as much as an answer may a cell of the book print: it has figures
POLL = 0.1  # seconds between two looks at the kernel's memory
GRACE = 5  # seconds for a kernel to end what it was interrupted in
SAID = 300  # characters that are kept of what a check or an error says
# A checker that an answer has replaced is put back before each check.
PUT_BACK = "from cvlab.check import exercise"


class Ended(Exception):
    """The kernel is gone, or was ended; the message says why."""


class Watched:
    """A kernel with everything below it, ended when it takes too much.

    Args:
        limits: dict of `memory` (bytes), `output` (characters of a cell), `seconds` (of all cells), `answer_seconds`.
        deadline: when all must be done, by `time.monotonic()`.
    """

    def __init__(self, limits, deadline):
        import zmq
        from jupyter_client import KernelManager

        self.limits, self.deadline, self.reason = limits, deadline, None
        context = zmq.Context()
        context.setsockopt(zmq.MAXMSGSIZE, BOOKS_OWN * limits["output"])  # a larger message ends the connection instead
        self.manager = KernelManager(kernel_name="python3", context=context)
        self.over = threading.Event()

    def __enter__(self):
        import subprocess

        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.manager.start_kernel(**quiet)
        self.client = self.manager.blocking_client()
        self.client.context = self.manager.context
        self.client.start_channels()
        self.watch = threading.Thread(target=self._watch, daemon=True)
        self.watch.start()
        try:
            self.client.wait_for_ready(timeout=60)
        except RuntimeError as error:
            raise Ended(f"the kernel did not start: {error}") from error
        return self

    def __exit__(self, *_):
        self.over.set()
        self.watch.join()
        self.client.stop_channels()
        end_all_below()

    def run(self, source, seconds=None, silent=False):
        """Run a cell → (what it printed, error or None).

        Args:
            source: the cell's code.
            seconds: after which it is interrupted; None, for a cell of the book, as long as the deadline allows.

        Raises:
            Ended: the kernel died, or had to be ended.
        """
        message = self.client.execute(source, silent=silent, store_history=not silent, allow_stdin=False)
        until = min(self.deadline, time.monotonic() + (seconds or 1e9))
        most = self.limits["output"] * (1 if seconds else BOOKS_OWN)
        printed, size, error, interrupted, replied = [], 0, None, False, None
        while True:
            try:
                told = self.client.get_iopub_msg(timeout=0.5)
            except queue.Empty:
                told = None
            self._check()
            now = time.monotonic()
            if now > until:
                if interrupted or now > self.deadline:
                    self._end("it did not end in time" if interrupted else "the time for all cells was over")
                interrupted, until = True, now + GRACE
                self.manager.interrupt_kernel()
            if told is None:  # an output that was too large for one message took the connection with it
                replied = replied or (now if self._has_replied(message) else None)
                if replied and now - replied > GRACE:
                    self._end("it printed too much")
                continue
            if told["parent_header"].get("msg_id") != message:
                continue
            kind, content = told["msg_type"], told["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return "".join(printed), "it did not end in time" if interrupted else error
            if kind == "error":
                error = f"{content['ename']}: {content['evalue']}"
            elif kind == "stream":
                printed.append(content["text"])
            size += len(json.dumps(content, default=str))
            if size > most:
                self._end("it printed too much")

    def _has_replied(self, message):
        with contextlib.suppress(queue.Empty):
            while True:
                if self.client.get_shell_msg(timeout=0)["parent_header"].get("msg_id") == message:
                    return True
        return False

    def _check(self):
        if self.reason:
            raise Ended(self.reason)
        if not self.manager.is_alive():
            raise Ended("the kernel died")

    def _end(self, reason):
        self.reason = reason
        end_all_below()
        raise Ended(reason)

    def _watch(self):
        """End the kernel as soon as it takes too much memory, together with all processes that it started."""
        while not self.over.wait(POLL):
            if memory_below() > self.limits["memory"]:
                self.reason = "it took too much memory"
                end_all_below()


def below() -> list:
    """List the processes below this one; orphans among them come to it, see `adopt_orphans`."""
    import psutil

    return psutil.Process().children(recursive=True)


def memory_below() -> int:
    """Give the resident memory of all processes below this one, in bytes."""
    import psutil

    total = 0
    for process in below():
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def end_all_below() -> None:
    """Kill all processes below this one, and those that they start meanwhile."""
    import psutil

    for _ in range(20):
        processes = [process for process in below() if process.status() != psutil.STATUS_ZOMBIE]
        if not processes:
            return
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=1)


def adopt_orphans() -> None:
    """Let processes whose parent ends become children of this one, where the system can (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def limit_this_process(limits: dict) -> None:
    """Limit what this process and those below it may allocate and write in one file; the watch comes first, if it can.

    Args:
        limits: see `Watched`; twice the memory may be allocated, as not all that is allocated is used.
    """
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (2 * limits["memory"],) * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file"],) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def grade_cells(cells: Sequence[dict], limits: dict) -> dict:
    """Run a lesson's cells up to its last check, with the answers of a submission → what each check said.

    An answer that ends the kernel has failed; the lesson is then run again without it, as far as the time goes.

    Args:
        cells: dicts of `kind` ("book", "answer" or "check"), `source` and `exercise` (its name, None for the book's).
        limits: see `Watched`.

    Returns:
        A dict of `exercises`, name → (status, what was said), the status being "passed", "failed", "untouched" or "not
        reached"; and `outcome`, "graded" or what went wrong.
    """
    deadline = time.monotonic() + limits["seconds"]
    without: dict[str, str] = {}  # exercise whose answer ended the kernel → why
    while True:
        raised: list[str] = []
        results, culprit, why = run_once(cells, limits, deadline, without, raised)
        if culprit is None or culprit in without or time.monotonic() > deadline:
            break
        without[culprit] = why
    results |= {name: ("failed", reason) for name, reason in without.items()}
    if culprit and culprit not in results:
        results[culprit] = ("failed", why)
    names = [cell["exercise"] for cell in cells if cell["kind"] == "check"]
    ended = [f"{name}: {reason}" for name, reason in without.items()]
    lessons_own = [f"a cell of the lesson failed: {raised[0]}"] if raised else []
    outcome = why or "; ".join([*ended, *lessons_own]) or "graded"
    return {"exercises": {name: results.get(name, ("not reached", "")) for name in names}, "outcome": outcome}


def run_once(cells: Sequence[dict], limits: dict, deadline: float, without: dict, raised: list) -> tuple:
    """Run the cells in a fresh kernel, but for the answers in `without`; note errors of the lesson's own in `raised`.

    Returns:
        Results (name → (status, said)) up to where the kernel ended, the exercise that ended it or None, and why.
    """
    results, current, broken = {}, None, {}
    try:
        with Watched(limits, deadline) as kernel:
            for cell in cells:
                name = cell["exercise"]
                current = name if cell["kind"] != "book" else current
                if cell["kind"] == "answer":
                    source = cell["blank"] if name in without else cell["source"]
                    broken[name] = kernel.run(source, limits["answer_seconds"])[1]
                elif cell["kind"] == "check":
                    kernel.run(PUT_BACK, silent=True)
                    printed, error = kernel.run(cell["source"], limits["answer_seconds"])
                    results[name] = judged(name, printed, broken.get(name) or error)
                else:
                    error = kernel.run(cell["source"])[1]
                    raised += [error[:SAID]] if error else []
    except Ended as ended:
        return results, current, str(ended)
    return results, None, None


def judged(name: str, printed: str, error: str | None) -> tuple[str, str]:
    """Tell from what a check printed how an exercise stands: (status, what was said)."""
    lines = [line for line in printed.splitlines() if line[1:].startswith(f" {name}")]
    line = lines[0] if len(lines) == 1 else ""
    if line.startswith("✓") and line.endswith("That is right."):
        return "passed", line[:SAID]
    if line.startswith("○") and not error:
        return "untouched", ""
    return "failed", (error or line or "the check said nothing")[:SAID]


def main() -> int:
    job = json.load(sys.stdin)
    adopt_orphans()
    limit_this_process(job["limits"])
    try:
        result = grade_cells(job["cells"], job["limits"])
    except (OSError, RuntimeError) as error:
        result = {"exercises": {}, "outcome": f"not run: {error}"}
    finally:
        end_all_below()
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
