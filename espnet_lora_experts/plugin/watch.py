"""Numbers that go wrong in a training: named, counted, and stopped at in time.

What is looked at is on the host already: ESPnet's reporter brings each step's
statistics there. So a look costs no wait for the GPU.

======================  ================================================================
loss or gradient is     the step is skipped, its utterances are named; ``MOST_SKIPPED``
not finite              in a row, all of an epoch, or no finite validation: an error
an expert diverges      named with the worst batch; the best epoch is what is exported
the router is dead      named after validation: all go to one language
alpha has collapsed     named after each epoch: one expert is all of the mixture
text without a target,  an error, and left out with a warning: see
or too fast for speech  :class:`~.base.WhisperModel` and :mod:`.task`
======================  ================================================================

In the epoch's statistics: ``skipped_steps``, ``diverging`` (languages), and for a MoLE
``alpha_<language>``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from math import isfinite, nan

from espnet2.train.reporter import SubReporter, aggregate, to_reported_value

MOST_SKIPPED = 20
"""Steps in a row. Scaling for float16 (use_amp) needs some until it has its scale."""
WINDOW = 20
"""Steps with a language over which its loss is averaged."""
DIVERGED = 2.0
"""Times the lowest such average, and one nat more."""
ALL = 0.99
"""Share from which one language has all."""
NAMED = 20


class Watch:
    """Looks at the numbers of one training, epoch after epoch.

    Args:
        languages: Of the experts whose losses are looked at.
        accum_grad: Batches of a step.
    """

    def __init__(self, languages: Sequence[str] = (), accum_grad: int = 1):
        self.languages, self.accum_grad = list(languages), accum_grad
        self.in_a_row = 0
        self.window: dict[str, deque] = {x: deque(maxlen=WINDOW) for x in languages}
        self.lowest: dict[str, float] = {}
        self.begin()

    def begin(self) -> None:
        """Starts to count an epoch."""
        self.skipped, self.taken = 0, 0
        self.diverging: set[str] = set()
        self.utts: list[str] = []

    def after(self, reporter: SubReporter, taken: int, utts: Sequence[str]) -> None:
        """Looks at a batch whose step is over.

        Args:
            reporter: Of the epoch.
            taken: Batches so far.
            utts: Of this batch.

        Raises:
            ValueError: Too many steps in a row were skipped.
        """
        if "loss" not in reporter.stats:  # no_forward_run
            return
        self.utts += utts
        for lang in self.languages:
            self._look_at_loss(lang, _last(reporter, f"loss_{lang}"), utts)
        if taken % self.accum_grad:
            return
        self.taken += 1
        # ESPnet takes no step, and reports no norm, where the gradient is not finite
        if isfinite(_last(reporter, "grad_norm")):
            self.in_a_row = 0
        else:
            self._skip(_last(reporter, "loss"))
        self.utts = []

    def _skip(self, loss: float) -> None:
        self.skipped += 1
        self.in_a_row += 1
        what = "gradient" if isfinite(loss) else "loss"
        logging.warning(
            f"the {what} is not finite, the step is skipped; one of its utterances may "
            f"be broken: {_named(self.utts)}"
        )
        if self.in_a_row >= MOST_SKIPPED:
            raise ValueError(
                f"losses and gradients must be finite, but were not in {MOST_SKIPPED} "
                f"steps in a row, the last of {_named(self.utts)}; lower optim_conf's "
                "lr, or look at these utterances; the same command again resumes after "
                "the last finished epoch"
            )

    def _look_at_loss(self, lang: str, loss: float, utts: Sequence[str]) -> None:
        if not isfinite(loss):  # the batch has no such language, or it is skipped
            return
        window = self.window[lang]
        window.append((loss, tuple(utts)))
        if len(window) < WINDOW:
            return
        mean = sum(value for value, _ in window) / WINDOW
        lowest = self.lowest[lang] = min(mean, self.lowest.get(lang, mean))
        if mean > DIVERGED * lowest + 1 and lang not in self.diverging:
            self.diverging.add(lang)
            worst = max(window)[1]
            logging.warning(
                f"{lang} diverges: a loss of {mean:.2f} in its last {WINDOW} batches, "
                f"after {lowest:.2f}; the worst batch: {_named(worst)}"
            )

    def end(self, reporter: SubReporter, alpha: Mapping[str, float]) -> None:
        """Puts the epoch's counts into its statistics.

        Args:
            reporter: Of the epoch.
            alpha: Each expert's mean share of a fusion; {} where there is none.

        Raises:
            ValueError: Not one step could be taken.
        """
        counts = {"skipped_steps": self.skipped, "diverging": len(self.diverging)}
        shares = {f"alpha_{name}": share for name, share in alpha.items()}
        for key, value in (counts | shares).items():
            if reporter.count:
                reporter.stats[key] = [to_reported_value(value)] * reporter.count
        most = max(alpha, key=alpha.__getitem__, default="")
        if len(alpha) > 1 and alpha[most] > ALL:
            logging.warning(
                f"alpha has collapsed: {alpha[most]:.3f} of the mixture is the expert "
                f"of {most}; a lower fusion_lr_scale keeps the others"
            )
        if self.skipped and self.skipped == self.taken:
            raise ValueError(
                f"losses and gradients must be finite, but were in none of the "
                f"{self.taken} steps of this epoch; lower optim_conf's lr"
            )

    def after_validation(self, reporter: SubReporter) -> None:
        """Looks at an epoch's validation.

        Raises:
            ValueError: It has no finite loss: no epoch could be the best.
        """
        means = {key: aggregate(values) for key, values in reporter.stats.items()}
        if not isfinite(means.get("loss", 0.0)):
            raise ValueError(
                "validation must have a finite loss, but has none; lower optim_conf's "
                "lr, or look at the validation set"
            )
        found = {x: means.get(f"acc_lid_{x}", nan) for x in self.languages}
        found = {lang: hit for lang, hit in found.items() if isfinite(hit)}
        all_to = [lang for lang, hit in found.items() if hit > ALL]
        if len(found) > 1 and len(all_to) == 1 and sum(found.values()) < 1 + 1 - ALL:
            logging.warning(
                f"the language is not found: all of {sorted(found)} are taken for "
                f"{all_to[0]}; is the learning rate too high, or a language too rare?"
            )


def _last(reporter: SubReporter, key: str) -> float:
    values = reporter.stats.get(key)
    return float(values[-1].value) if values else nan


def _named(utts: Sequence[str]) -> str:
    more = f" and {len(utts) - NAMED} more" if len(utts) > NAMED else ""
    return ", ".join(utts[:NAMED]) + more
