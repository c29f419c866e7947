"""Batches of mixed languages: weighted sampling, length buckets, bounded size."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np
from espnet2.samplers.abs_sampler import AbsSampler

from espnet_lora_experts.whisper.features import MARGIN, MAX_SAMPLES


class LanguageSampler(AbsSampler):
    """Draws each language by its weight, then groups utterances of similar length.

    An epoch has as many utterances as the corpus. Language l contributes
    ``weight_l / sum(weight)`` of them: whole passes over its utterances, each in a new
    order, then a part of one. Each epoch is drawn anew from its seed.

    Args:
        lengths: Samples of each utterance (at 16 kHz).
        utt2lang: Language of each utterance.
        weights: ``uniform``, ``proportional`` (each utterance once an epoch), or a
            weight for each language (the paper's curated: 1.0 for zh, 0.25 for ko ...).
        batch_bins: Most samples of a padded batch, margin included.
        shuffle: False gives every utterance once, in order of length.
        min_batch_size: Smallest batch, the number of ranks in distributed training.
        most_per_language: Train on so many utterances of each language, drawn once for
            all; a smaller number's are among a larger one's. Epochs stay as long as the
            corpus, so that systems compare at about equal steps. None: on all.

    Raises:
        ValueError: An utterance without language, a language without weight, no
            utterance left, a batch size that holds no utterance, or a
            ``most_per_language`` of none.
    """

    def __init__(
        self,
        lengths: Mapping[str, int],
        utt2lang: Mapping[str, str],
        weights: str | Mapping[str, float] = "uniform",
        batch_bins: int = 160 * 16_000,
        shuffle: bool = True,
        min_batch_size: int = 1,
        most_per_language: int | None = None,
    ):
        lengths = _usable(lengths)
        _require_languages(lengths, utt2lang)
        self.utts = sorted(lengths)
        self.cost = np.array([lengths[utt] for utt in self.utts], np.int32) + MARGIN
        longest = int(self.cost.max()) * min_batch_size
        if batch_bins < longest:
            raise ValueError(
                f"batch_bins must hold {min_batch_size} utterance(s) of the longest "
                f"({longest} samples with margin), one for each process, but got "
                f"{batch_bins}"
            )
        self.batch_bins, self.shuffle = batch_bins, shuffle
        self.min_batch_size = min_batch_size
        langs = [utt2lang[utt] for utt in self.utts]
        place = {lang: i for i, lang in enumerate(dict.fromkeys(langs))}
        self.lang_of = np.array([place[lang] for lang in langs], np.int16)
        self.rows_of = {x: np.flatnonzero(self.lang_of == i) for x, i in place.items()}
        self.quota = self._quota(weights if shuffle else "proportional")
        if most_per_language is not None and shuffle:
            self._keep(most_per_language)
        self.length = 0
        self.length = len(self.generate(0))

    def _quota(self, weights: str | Mapping[str, float]) -> dict[str, int]:
        sizes = {lang: len(rows) for lang, rows in self.rows_of.items()}
        if weights == "proportional":
            return sizes
        if weights == "uniform":
            weights = dict.fromkeys(sizes, 1.0)
        known = not isinstance(weights, str) and set(sizes) <= set(weights)
        if not known or min(weights[lang] for lang in sizes) <= 0:
            raise ValueError(
                "weights must be uniform, proportional or a positive number for each "
                f"of {sorted(sizes)}, but got {weights}"
            )
        total = sum(weights[lang] for lang in sizes)
        corpus = sum(sizes.values())
        return {lang: max(1, round(corpus * weights[lang] / total)) for lang in sizes}

    def _keep(self, most: int) -> None:
        """Leaves so many utterances of each language."""
        if most < 1:
            raise ValueError(f"most_per_language must be 1 or more, but got {most}")
        for lang, rows in self.rows_of.items():
            order = np.random.RandomState(0).permutation(len(rows))[:most]
            self.rows_of[lang] = rows[np.sort(order)]

    def generate(self, seed: int) -> list[tuple[str, ...]]:
        """The batches of one epoch, rows of a language together.

        ESPnet's SequenceIterFactory shuffles the batches.
        """
        rng = np.random.RandomState(seed)
        drawn = np.concatenate(
            [
                _draw(self.rows_of[lang], quota, rng if self.shuffle else None)
                for lang, quota in self.quota.items()
            ]
        )
        batches = self._at_least(self._batches(self._bucketed(drawn, rng)))
        together = (sorted(batch, key=self.lang_of.__getitem__) for batch in batches)
        return [tuple(self.utts[row] for row in batch) for batch in together]

    def _bucketed(self, drawn: np.ndarray, rng) -> np.ndarray:
        """Sorts by length to about 10 %, so that batches differ between epochs."""
        noise = rng.uniform(0, np.log(1.1), len(drawn)) if self.shuffle else 0
        key = np.log(self.cost[drawn]) + noise
        return drawn[np.argsort(key, kind="stable")]

    def _batches(self, ordered: np.ndarray) -> list[list[int]]:
        batches: list[list[int]] = [[]]
        longest = 0
        rows = zip(ordered.tolist(), self.cost[ordered].tolist(), strict=True)
        for row, cost in rows:
            longest = max(longest, cost)
            if longest * (len(batches[-1]) + 1) > self.batch_bins:
                batches.append([])
                longest = cost
            batches[-1].append(row)
        return self._fill_last(batches)

    def _fill_last(self, batches: list[list[int]]) -> list[list[int]]:
        """Fills a last batch smaller than the number of ranks from those with more.

        Where none has more, its first utterance comes again: each rank needs one.
        """
        last = batches[-1]
        while len(last) < self.min_batch_size:
            larger = [b for b in batches[:-1] if len(b) > self.min_batch_size]
            last.insert(0, larger[-1].pop() if larger else last[0])
        return batches

    def _at_least(self, batches: list[list[int]]) -> list[list[int]]:
        """Splits large batches up to ``len(self)``, which ESPnet cuts epochs by."""
        while len(batches) < self.length:
            largest = max(batches, key=len)
            if len(largest) < 2 * self.min_batch_size:
                break
            batches.append(largest[1::2])
            del largest[1::2]
        return batches

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return iter(self.generate(0))


class ShardedSampler(AbsSampler):
    """One rank's rows of every batch: an equal share, of as few languages as can be.

    Each expert's product is one call for its rows. With rows of all languages, as
    ESPnet shards (``batch[rank::world_size]``), every rank would make all these calls.
    """

    def __init__(self, sampler: LanguageSampler, rank: int, world_size: int):
        self.sampler, self.rank, self.world_size = sampler, rank, world_size

    def generate(self, seed: int) -> list[tuple[str, ...]]:
        return [self._share(batch) for batch in self.sampler.generate(seed)]

    def _share(self, batch: tuple[str, ...]) -> tuple[str, ...]:
        ranks = (self.rank, self.rank + 1)
        start, end = (len(batch) * rank // self.world_size for rank in ranks)
        return batch[start:end]

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return iter(self.generate(0))


def _usable(lengths: Mapping[str, int]) -> dict[str, int]:
    kept = {utt: n for utt, n in lengths.items() if 0 < n <= MAX_SAMPLES}
    dropped = sorted(set(lengths) - set(kept))
    if dropped:
        logging.warning(
            f"{len(dropped)} utterance(s) are empty or longer than 30 s and are left "
            f"out: {', '.join(dropped[:3])} ..."
        )
    if not kept:
        raise ValueError(f"no utterance of {len(lengths)} is between 0 and 30 s long")
    return kept


def _require_languages(lengths: Mapping[str, int], utt2lang: Mapping[str, str]) -> None:
    missing = sorted(set(lengths) - set(utt2lang))
    if missing:
        raise ValueError(
            f"every utterance must be in utt2lang, but {len(missing)} are not: "
            f"{', '.join(missing[:3])} ..."
        )


def _draw(rows: np.ndarray, quota: int, rng) -> np.ndarray:
    """``quota`` utterances: whole passes first, each shuffled."""
    drawn = []
    for _ in range(0, quota, len(rows)):
        drawn.append(rows if rng is None else rows[rng.permutation(len(rows))])
    return np.concatenate(drawn)[:quota]
