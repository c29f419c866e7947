"""How long a training will take, from its first epoch on."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta

EVERY = 15.0
"""Seconds between two lines."""


@dataclass(frozen=True)
class Progress:
    """The batches of an epoch; while they are taken, the time left is logged.

    Validations to come are left out. ESPnet's own estimate comes when an epoch ends, so
    never in the first.

    Attributes:
        batches: Of the epoch.
        epoch: Its number, from 1.
        epochs: How many there will be.
    """

    batches: Collection
    epoch: int
    epochs: int

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator:
        start = said = time.monotonic()
        for done, batch in enumerate(self.batches):
            now = time.monotonic()
            if done and now - said >= EVERY:
                said = now
                left = len(self) - done + (self.epochs - self.epoch) * len(self)
                to_go = timedelta(seconds=round(left * (now - start) / done))
                logging.info(
                    f"{self.epoch}/{self.epochs}epoch: {done} of {len(self)} batches. "
                    f"Estimated time to finish: {to_go}"
                )
            yield batch
