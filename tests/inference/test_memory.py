"""What is remembered of clips, and when it is decoded again."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from espnet_lora_experts.inference.memory import Memory
from espnet_lora_experts.inference.result import Segment, join


class Recognizer:
    """Finds ``es`` and notes what it was asked; clips over 1 s are two segments."""

    def __init__(self, soft=False):
        self.asked, self.system = [], SimpleNamespace(soft=soft)

    def __call__(self, speech, langs=None, progress=None):
        self.asked.append([len(clip) for clip in speech])
        progress(len(speech))
        langs = langs or [None] * len(speech)
        return [self.result(*clip) for clip in zip(speech, langs, strict=True)]

    def result(self, clip, lang):
        text = f"{len(clip)} in {lang or 'es'}"
        times = [(0.0, 0.5)] if len(clip) <= 16_000 else [(0.0, 0.5), (0.5, 1.5)]
        said = [
            Segment(text, lang or "es", {}, -1.0, [], start=a, end=b) for a, b in times
        ]
        return join(said, lang)


@pytest.fixture
def paths(tmp_path):
    """Clips of 1000, 2000 and 20000 samples."""
    paths = [tmp_path / f"{n}.wav" for n in (1000, 2000, 20_000)]
    for path in paths:
        soundfile.write(path, np.zeros(int(path.stem)), 16_000)
    return [str(path) for path in paths]


def system(lang):
    return "kd"


def expert(lang):
    return "mono", lang


def ask(memory, recognizer, clips, voice=system):
    return [said.result.text for said in memory.ask(recognizer, clips, voice)]


def test_a_language_that_was_found_is_not_decoded_again(paths):
    memory, recognizer = Memory(), Recognizer()
    short = paths[:2]
    found = ask(memory, recognizer, [(path, None) for path in short])
    given = ask(memory, recognizer, [(short[1], "ru"), (short[0], "es")])
    assert (found, given) == (
        ["1000 in es", "2000 in es"],
        ["2000 in ru", "1000 in es"],
    )
    assert recognizer.asked == [[1000, 2000], [2000]]


def test_what_a_soft_route_says_is_another_matter(paths):
    """Than what the system says when it is told the language that it found."""
    memory, recognizer = Memory(), Recognizer(soft=True)
    for lang in (None, None, "es", "es"):
        ask(memory, recognizer, [(paths[0], lang)])
    assert recognizer.asked == [[1000], [1000]]


def test_languages_given_and_to_be_found_keep_their_order(paths):
    memory, recognizer = Memory(), Recognizer()
    clips = [(paths[0], None), (paths[1], "ru"), (paths[0], "fr"), (paths[1], None)]
    texts = ["1000 in es", "2000 in ru", "1000 in fr", "2000 in es"]
    assert ask(memory, recognizer, clips) == texts
    assert recognizer.asked == [[2000, 1000], [1000, 2000]]


def test_segments_with_languages_of_their_own_are_decoded_again(paths):
    memory, recognizer = Memory(), Recognizer()
    for lang in (None, "es", "es"):
        ask(memory, recognizer, [(paths[2], lang)])
    assert recognizer.asked == [[20_000], [20_000]]


def test_another_voice_is_decoded(paths):
    memory, recognizer = Memory(), Recognizer()
    for voice in (system, expert):
        ask(memory, recognizer, [(paths[0], "es")], voice)
    assert recognizer.asked == [[1000], [1000]]
    assert memory.get(paths[0], "es", expert) is not None
    assert memory.get(paths[0], "ru", expert) is None


def test_seconds_are_the_clip_s_share_and_all_are_counted(paths):
    done = []
    said = Memory().ask(
        Recognizer(), [(path, "es") for path in paths[:2]], system, done.append
    )
    assert [one.audio_s for one in said] == [1000 / 16_000, 2000 / 16_000]
    assert said[1].s == pytest.approx(2 * said[0].s) and said[0].s > 0
    assert sum(done) == 2
