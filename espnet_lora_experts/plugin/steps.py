"""The steps of an epoch: where a training can stop, and its numbers are looked at."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupt:
    """SIGTERM or SIGINT ends a training at its next step; a second one ends it at once.

    A scheduler that takes the machine away (SLURM's preemption and time limit) sends
    SIGTERM first. The exit status is the shell's: 143 or 130.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, object] = {}

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Waits for signals; where another thread trains, they are left as they are."""
        self.received = None
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.previous = {x: signal.signal(x, self._receive) for x in SIGNALS}
        try:
            yield
        finally:
            for number, handler in self.previous.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame) -> None:
        self.received = number
        for each, handler in self.previous.items():
            signal.signal(each, handler)  # type: ignore[arg-type]

    def check(self, where: str) -> None:
        """Ends the process if a signal came.

        Raises:
            SystemExit: With 128 and the signal's number.
        """
        if self.received is not None:
            name = signal.Signals(self.received).name
            logging.warning(
                f"stopped by {name} {where}; the same command again resumes after the "
                "last finished epoch"
            )
            sys.exit(128 + self.received)


@dataclass(frozen=True)
class Steps:
    """The batches of an epoch, with a look at each one when its step is over.

    Attributes:
        batches: ``(utterance ids, batch)``.
        after: Called with the number of steps taken and the last one's utterance ids.
    """

    batches: Iterable
    after: Callable[[int, list[str]], None]

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]  # ESPnet takes a TypeError

    def __iter__(self) -> Iterator:
        for taken, (utts, batch) in enumerate(self.batches, 1):
            yield utts, batch
            self.after(taken, utts)
