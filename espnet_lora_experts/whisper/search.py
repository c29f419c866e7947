"""Beam search over a batch; with one hypothesis per utterance it is greedy search.

Names of dimensions: B batch, Q hypotheses of an utterance, W candidates, K vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from espnet_lora_experts.whisper.stepper import Stepper

WORST = float("-inf")
LEFT = 0.75
"""Share of a batch that is still going when the rest is taken out of it."""


@dataclass(frozen=True)
class Path:
    """A hypothesis: tokens without the end, and its log probability with it."""

    tokens: tuple[int, ...] = ()
    score: float = 0.0
    ended: bool = False

    def then(self, token: int, score: float, eot: int) -> Path:
        """The hypothesis with one more token, of the total score given."""
        if token == eot:
            return Path(self.tokens, score, True)
        return Path((*self.tokens, token), score)

    def repeating(self, size: int) -> list[int]:
        """Tokens that would end the same ``size`` tokens a second time.

        Example:
            >>> Path((1, 2, 3, 1, 2)).repeating(3), Path((1, 2, 3, 1, 2)).repeating(4)
            ([3], [])
        """
        last = self.tokens[len(self.tokens) - size + 1 :]
        starts = range(len(self.tokens) - size + 1)
        return [
            self.tokens[i + size - 1]
            for i in starts
            if self.tokens[i : i + size - 1] == last
        ]

    def rank(self, length_penalty: float) -> float:
        """Score divided by length to the power of ``length_penalty``."""
        return self.score / (len(self.tokens) + self.ended) ** length_penalty


@dataclass
class Utterance:
    """The hypotheses of one utterance.

    Attributes:
        limit: Most tokens.
        alive: Those that grow, best first.
        ended: Those that met the end token among the best ``beam`` candidates.
        done: Whether it needs no more steps.
    """

    limit: int
    alive: list[Path] = field(default_factory=lambda: [Path()])
    ended: list[Path] = field(default_factory=list)
    done: bool = False

    def advance(
        self, candidates: Iterable[tuple[float, int, int]], beam: int, eot: int
    ) -> list[int]:
        """Takes the best candidates ``(score, parent, token)``, best first.

        Returns:
            The parent of each hypothesis that is alive now; empty when done.
        """
        alive, parents = [], []
        for place, (score, parent, token) in enumerate(candidates):
            if score == WORST:
                break
            path = self.alive[parent].then(token, score, eot)
            if not path.ended and len(alive) < beam:
                alive.append(path)
                parents.append(parent)
            elif path.ended and place < beam:
                self.ended.append(path)
        self.alive = alive or self.alive
        full = len(self.alive[0].tokens) >= self.limit
        self.done = full or len(self.ended) >= beam or not parents
        return [] if self.done else parents

    def best(self, length_penalty: float) -> Path:
        """The best hypothesis that ended; if none did, the best that was cut off."""
        return max(self.ended or self.alive, key=lambda path: path.rank(length_penalty))


def search(
    stepper: Stepper,
    logits_BK: Tensor,
    limits: Sequence[int],
    eot: int,
    never_K: Tensor,
    length_penalty: float = 1.0,
    no_repeat_ngram_size: int = 0,
) -> list[Path]:
    """Decodes a batch to the end.

    An utterance is done when as many hypotheses ended as there are beams, or at its
    limit. Who is done leaves the batch together with others, since the keys and values
    of all who stay are copied then.

    Args:
        stepper: Fed with the prompt.
        logits_BK: Scores of the first token.
        limits: Most tokens of each utterance.
        eot: Id of the end token.
        never_K: Added to all scores: minus infinity for what may not come.
        length_penalty: Exponent of the length that scores are divided by.
        no_repeat_ngram_size: So many tokens never come a second time; 0: they may.

    Returns:
        The best hypothesis of each utterance.
    """
    utterances = [Utterance(limit) for limit in limits]
    going = list(utterances)
    logits_BQK = logits_BK[:, None]
    scores_BQ = logits_BQK.new_zeros(logits_BQK.shape[:2], dtype=torch.float32)
    while True:
        allowed_BQK = logits_BQK.float() + never_K
        if no_repeat_ngram_size:
            _forbid_repeats(allowed_BQK, going, no_repeat_ngram_size)
        found = _candidates(allowed_BQK, scores_BQ, stepper.beam)
        parents = [
            []
            if utterance.done
            else utterance.advance(zip(*rows, strict=True), stepper.beam, eot)
            for utterance, *rows in zip(going, *found, strict=True)
        ]
        rows = [b for b, utterance in enumerate(going) if not utterance.done]
        if not rows:
            return [utterance.best(length_penalty) for utterance in utterances]
        if len(rows) <= LEFT * len(going):
            going, parents = [going[b] for b in rows], [parents[b] for b in rows]
            stepper.keep(rows)
        ids_BQ, scores_BQ = _grown(going, stepper, parents)
        logits_BQK = stepper.step(ids_BQ)


def _forbid_repeats(logits_BQK: Tensor, going: Sequence[Utterance], size: int) -> None:
    """Takes out, in place, what would end the same ``size`` tokens a second time."""
    for logits_QK, utterance in zip(logits_BQK, going, strict=True):
        for logits_K, path in zip(logits_QK, utterance.alive, strict=False):
            if repeating := path.repeating(size):
                logits_K[repeating] = WORST


def _candidates(logits_BQK: Tensor, scores_BQ: Tensor, beam: int) -> list[list]:
    """Scores, parents and tokens of the best continuations, best first, (B, W) each.

    W is twice the beam: all of a beam's best may be the end.
    """
    width = min(2 * beam, logits_BQK.shape[-1]) if beam > 1 else 1
    top_BQW, ids_BQW = (
        logits_BQK.topk(width) if width > 1 else logits_BQK.max(dim=-1, keepdim=True)
    )
    norm_BQ1 = logits_BQK.logsumexp(dim=-1, keepdim=True)
    totals_BW = (top_BQW - norm_BQ1 + scores_BQ[:, :, None]).flatten(1)
    best_BW, place_BW = totals_BW.topk(width)
    ids_BW = ids_BQW.flatten(1).gather(1, place_BW)
    return [best_BW.tolist(), (place_BW // width).tolist(), ids_BW.tolist()]


def _grown(
    going: Sequence[Utterance], stepper: Stepper, parents: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Next tokens and scores, (B, Q) each; the stepper's paths follow the parents.

    Where a small vocabulary gives too few, or the utterance is done, hopeless ones
    fill up.
    """
    device, beam = stepper.valid_BP.device, stepper.beam
    ids, scores, sources = [], [], []
    for utterance, row in zip(going, parents, strict=True):
        lack, alive = beam - len(row), utterance.alive[: len(row)]
        ids.append([path.tokens[-1] for path in alive] + lack * [0])
        scores.append([path.score for path in alive] + lack * [WORST])
        sources.append([*row] + lack * [0])
    stepper.follow(torch.tensor(sources, device=device))
    return torch.tensor(ids, device=device), torch.tensor(scores, device=device)
