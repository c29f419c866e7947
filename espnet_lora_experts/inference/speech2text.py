"""Speech to text with one system: a recording, or a list of them in batches."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from espnet_lora_experts.inference.clips import ClipRecognizer, of
from espnet_lora_experts.inference.experts import ExpertView
from espnet_lora_experts.inference.recordings import Recording, Speech, pools
from espnet_lora_experts.inference.result import Result, Segment, join
from espnet_lora_experts.inference.segmentation import Segmentation
from espnet_lora_experts.whisper import hub, languages
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.folder import VANILLA, load_system
from espnet_lora_experts.whisper.prompt import Prompter
from espnet_lora_experts.whisper.systems import System


class Speech2Text(ClipRecognizer):
    """Recognizes speech with one system: experts, MoLE, student, baseline or vanilla.

    Threads may share it, and other recognizers on its backbone: their calls, and
    switches of experts, wait for each other, since gates are in force for all of a
    Whisper. Recognizers with a backbone each run side by side.

    Args:
        backbone: The frozen Whisper.
        system: The gates.
        prompter: Tokens and prompts of the backbone.
        pad_to_30s: Pad clips to 30 s. A Whisper that was not fine-tuned needs it, a
            system trained at natural length (the default of all recipes) does not.
        batch_seconds: Most seconds of a padded batch of the encoder.
        autocast: Type of the matrix products, see
            :func:`~.whisper.precision.autocast_type`.
        finder: Finds the language for systems that cannot; see :meth:`two_pass`.
        segmentation: How recordings over 30 s are cut: ``auto``, ``vad`` or
            ``windows``, see :class:`~.segmentation.Segmentation`.
        max_segment: Most seconds of a segment that was cut.
        min_pause: Seconds without voice that end a segment.
        options: How to decode, see :class:`~.whisper.decoding.DecodeOptions`.

    Attributes:
        system: The gates in force.
        loaded: The gates that it was made with.
    """

    def __init__(
        self,
        backbone: Backbone,
        system: System,
        prompter: Prompter,
        pad_to_30s: bool = False,
        batch_seconds: float = 80.0,
        autocast: str = "none",
        finder: Speech2Text | None = None,
        segmentation: str = "auto",
        max_segment: float = 28.0,
        min_pause: float = 0.4,
        **options,
    ):
        super().__init__(
            backbone, system, prompter, pad_to_30s, batch_seconds, autocast, **options
        )
        self.loaded, self.finder = system, finder
        self.segmentation = Segmentation(segmentation, max_segment, min_pause)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike,
        backbone: Backbone | None = None,
        device: str | torch.device | None = None,
        languages: Sequence[str] | None = None,
        **kwargs,
    ) -> Speech2Text:
        """Loads a system, as training exports it, or a LoRA of plain PEFT.

        Args:
            folder: Its folder or its id on the hub, ``user/name`` or
                ``user/name@revision``; of type vanilla, see :meth:`vanilla`.
            backbone: A Whisper in memory to use, where it is the right one.
            device: ``cpu``, ``cuda``, ...; None: where the backbone is.
            languages: Of a LoRA whose model card names none.
            kwargs: See the class.

        Raises:
            FileNotFoundError: A file of the folder is missing.
            ValueError: A file is broken, the device is not there, or the folder holds
                no system by itself, as that of two passes; see :meth:`two_pass`.
        """
        backbone, system, what = load_system(folder, backbone, languages)
        device = _usable(device or backbone.hf.device)
        backbone, system = backbone.to(device), system.to(device)
        if what["type"] == VANILLA:
            return cls.vanilla(backbone, system.languages, **kwargs)
        return cls(backbone, system, Prompter(hub.resolve(backbone.name)), **kwargs)

    @classmethod
    def vanilla(
        cls, backbone: Backbone, targets: Sequence[str], **kwargs
    ) -> Speech2Text:
        """Whisper as it came: padded to 30 s, its own token suppression.

        Args:
            backbone: The Whisper.
            targets: Languages that may be found.
            kwargs: See the class.
        """
        return cls(
            backbone,
            System([languages.get(code).code for code in targets]),
            Prompter(hub.resolve(backbone.name)),
            **{"pad_to_30s": True, "suppress_tokens": True} | kwargs,
        )

    def with_system(
        self, system: System, backbone: Backbone | None = None
    ) -> Speech2Text:
        """The same options with other gates, on the same backbone or another."""
        return Speech2Text(
            backbone or self.backbone,
            system,
            self.prompter,
            self.pad_to_30s,
            self.batch_seconds,
            self.autocast,
            self.finder,
            self.segmentation.method,
            self.segmentation.max_segment,
            self.segmentation.min_pause,
            **self.options,
        )

    def two_pass(self, finder: Speech2Text) -> Speech2Text:
        """The same system, with another one to find the language first."""
        self.finder = finder
        return self

    @property
    def experts(self) -> ExpertView:
        """The experts, to list, add, drop, switch, mix and fold them."""
        return ExpertView(self)

    def __call__(
        self,
        speech: Speech | Sequence[Speech],
        lang: str | Sequence[str] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Result | list[Result]:
        """Recognizes a recording of any length, or a list of them in batches.

        Beside the samples of an hour of speech, or of one longer recording, it needs
        the memory of a batch.

        Args:
            speech: Path, samples at 16 kHz in [-1, 1], or a list of either.
            lang: Language code, or one for each recording; None finds it, in each
                segment by itself.
            progress: Called with the number of recordings done, after each batch.

        Returns:
            One result, or a list in the order of the recordings.

        Raises:
            ValueError: Unknown language, unreadable or empty audio.
        """
        one = not isinstance(speech, list | tuple)
        given = [speech] if one else speech
        report = progress or (lambda done: None)
        results: list[Result] = []
        with self._turn():
            langs = self._checked(lang, len(given))
            for pool in pools(given, self.segmentation):
                known = langs and langs[len(results) :][: len(pool)]
                results += self._transcribe(pool, known, report)
                del pool  # before the next is read
        return results[0] if one else results

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Waits for the threads that use this backbone, or the finder's."""
        users = (self,) if self.finder is None else (self, self.finder)
        with ExitStack() as turns:
            # In one order, so that no two threads wait for each other.
            for bank in sorted({user.backbone.bank for user in users}, key=id):
                turns.enter_context(bank.turn)
            yield

    def _checked(self, lang, count: int) -> list[str] | None:
        if lang is None:
            return None
        langs = [lang] * count if isinstance(lang, str) else list(lang)
        if len(langs) != count:
            raise ValueError(f"lang must be one or {count} codes, but got {len(langs)}")
        unknown = sorted({languages.get(code).code for code in langs})
        unknown = [code for code in unknown if code not in self.system.languages]
        if unknown:
            raise ValueError(
                f"lang must be of this system's {self.system.languages}, got {unknown}"
            )
        return langs

    def _transcribe(self, pool: list[Recording], langs, progress) -> list[Result]:
        """The results of recordings whose segments are decoded together."""
        owners = [i for i, one in enumerate(pool) for _ in one.spans]
        clips = [clip for one in pool for clip in one.clips]
        known = of(langs, owners)
        if known is None and self.finder is not None:
            known = self.finder.find_languages(clips)
        left = Counter(owners)

        def count(rows: Sequence[int]) -> None:
            left.subtract(owners[row] for row in rows)
            progress(sum(left[i] == 0 for i in {owners[row] for row in rows}))

        said = iter(self.recognize(clips, known, count))
        silent = sum(not one.spans for one in pool)
        if silent:
            progress(silent)
        return [
            join(
                [
                    Segment(**vars(next(said)), start=start, end=end)
                    for start, end in one.times
                ],
                langs and langs[i],
            )
            for i, one in enumerate(pool)
        ]


def _usable(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # unknown, or not built in
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device must be one that torch can use here, but got {device}: {reason}"
        ) from error
