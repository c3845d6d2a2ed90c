"""One computation at a time, and one that a button can stop.

Newer frontends hand the messages of widgets to a thread of their own (a subshell of the kernel), so a control can be
moved while a cell runs. Views and attacks put hooks on models that they share with the cells, so here nothing is
computed at the same time: a panel waits for the cell, a cell for the attack.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from unlearnkit.errors import UnlearnkitError

_turn = threading.RLock()
_working: Worker | None = None  # the worker that has the turn, or waits for it
_cells = 0  # turns that cells hold


class Stopped(Exception):
    """The reader pressed stop."""


class Worker:
    """Work in a thread beside the kernel's own, so that the kernel still hears of a pressed button.

    It stops before the next forward pass of any torch module, or where `check` is called, by a `Stopped` raised in the
    work itself, so that whatever the work has put on a model is taken off as after any other error.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def busy(self) -> bool:
        return _working is self

    def start(self, work: Callable[[], None], after: Callable[[], None] = lambda: None) -> None:
        """Begin, and call `after` when it has ended; raises UnlearnkitError when this or another worker hasn't."""
        global _working
        if _working is not None:
            raise UnlearnkitError(BUSY)
        _working = self
        self._stop.clear()
        context = contextvars.copy_context()  # what it sends belongs to the click
        self._thread = threading.Thread(target=context.run, args=(self._run, work, after), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask it to stop; it does within a moment."""
        self._stop.set()

    def check(self) -> None:
        """Raise Stopped if that was asked for."""
        if self._stop.is_set():
            raise Stopped

    def wait(self, seconds: float | None = None) -> None:
        """Until it has ended."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, work: Callable[[], None], after: Callable[[], None]) -> None:
        global _working
        from torch.nn.modules.module import register_module_forward_pre_hook

        mine = threading.get_ident()

        def look(module: Any, given: Any) -> None:
            if threading.get_ident() == mine:
                self.check()

        try:
            with _turn:
                hook = register_module_forward_pre_hook(look)
                try:
                    work()
                finally:
                    hook.remove()
        finally:
            _working = None
            after()


BUSY = "an attack is running; wait for it, or press its stop."


@contextmanager
def alone() -> Iterator[None]:
    """While open, no cell, no other panel and no worker computes. It waits for a cell.

    Raises:
        UnlearnkitError: a worker is at it; waiting here could keep the button that stops it from being heard.
    """
    while not _turn.acquire(timeout=0.1):
        if _working is not None:
            raise UnlearnkitError(BUSY)
    try:
        yield
    finally:
        _turn.release()


def cells_take_turns() -> None:
    """From now on a cell waits for the worker, and panels for the cell; nothing outside of IPython."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is not None and _before not in shell.events.callbacks["pre_run_cell"]:
        shell.events.register("pre_run_cell", _before)
        shell.events.register("post_run_cell", _after)


def _before(_: Any = None) -> None:
    global _cells
    try:
        _turn.acquire()
    except KeyboardInterrupt:  # interrupting the kernel stops the attack, too
        if _working is not None:
            _working.stop()
        _turn.acquire()
    _cells += 1


def _after(_: Any = None) -> None:
    global _cells
    if _cells:  # none, after the cell that called `cells_take_turns`
        _cells -= 1
        _turn.release()
