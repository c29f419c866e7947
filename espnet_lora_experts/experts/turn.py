"""Threads that take turns at a model, since one gate is in force for all of it."""

from __future__ import annotations

import threading


class Turn:
    """A lock that a thread may take again; a copy of it is another lock.

    Example:
        >>> turn = Turn()
        >>> with turn, turn:
        ...     print("mine")
        mine
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self):
        """Locks are not copied: who copies a model gets a free one with it."""
        return Turn, ()
