"""What systems said of clips: nothing is decoded twice, whoever asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from espnet_lora_experts.inference.result import Result
from espnet_lora_experts.inference.speech2text import Speech2Text
from espnet_lora_experts.whisper.audio import SAMPLE_RATE
from espnet_lora_experts.whisper.wav_scp import read_entry

Voice = Callable[[str | None], Hashable]
"""What speaks when a clip's language is given (None: it is to be found): all that a
transcript depends on besides the clip and the language."""


@dataclass(frozen=True)
class Said:
    """What was said in a clip.

    Attributes:
        result: The transcript.
        audio_s: Seconds of the clip.
        s: Seconds of computing: the clip's share of the batches it was decoded in.
    """

    result: Result
    audio_s: float
    s: float


class Memory:
    """Decodes each clip once with each voice in each language.

    A system that finds the language says what it says when it is told the same
    language, but where its routing is soft; experts crossed with all languages say on
    their own what experts say.
    """

    def __init__(self):
        self._said: dict[tuple[str, str | None, Hashable], Said] = {}

    def ask(
        self,
        recognizer: Speech2Text,
        clips: Sequence[tuple[str, str | None]],
        voice: Voice,
        progress: Callable[[int], object] = lambda done: None,
    ) -> list[Said]:
        """What is said in clips, decoded where it is not known yet.

        Args:
            recognizer: Decodes.
            clips: Entry of ``wav.scp`` and language of each; None finds the language.
            voice: What the recognizer speaks with.
            progress: Called with the number of clips that are done.

        Returns:
            In the order of the clips.
        """
        lacking = [clip for clip in clips if self.get(*clip, voice) is None]
        progress(len(clips) - len(lacking))
        for told in (True, False):
            part = [clip for clip in lacking if (clip[1] is not None) is told]
            if part:
                self._decode(recognizer, part, voice, progress)
        return [self._said[path, lang, voice(lang)] for path, lang in clips]

    def get(self, path: str, lang: str | None, voice: Voice) -> Said | None:
        """What is known of a clip."""
        return self._said.get((path, lang, voice(lang)))

    def _decode(self, recognizer, clips, voice, progress) -> None:
        """Clips whose languages are all given, or all to be found."""
        paths, langs = zip(*clips, strict=True)
        speech = [read_entry(path) for path in paths]
        start = time.perf_counter()
        results = recognizer(speech, None if None in langs else langs, progress)
        rate = (time.perf_counter() - start) / max(sum(map(len, speech)), 1)
        for path, lang, clip, result in zip(paths, langs, speech, results, strict=True):
            said = Said(result, len(clip) / SAMPLE_RATE, len(clip) * rate)
            self._said[path, lang, voice(lang)] = said
            whole = len(result.segments) == 1  # else each has a language of its own
            if whole and not recognizer.system.soft:
                self._said[path, result.lang, voice(result.lang)] = said
