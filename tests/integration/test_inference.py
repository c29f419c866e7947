"""Real Whisper, real experts, real speech: the page of examples, long recordings."""

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import espnet_lora_experts
from espnet_lora_experts.inference.voice import speech_spans
from espnet_lora_experts.whisper.audio import SAMPLE_RATE, read_audio

pytestmark = pytest.mark.integration

PAGE = Path(espnet_lora_experts.__file__).with_name("README.md")


@pytest.fixture(scope="module")
def clips(recipe):
    """Speech of a second or more in all languages."""
    paths = sorted((recipe / "dump/raw/test/data").glob("*"))
    clips = [read_audio(path) for path in paths]
    return [clip for clip in clips if len(clip) >= SAMPLE_RATE]


def test_every_example_of_the_page_is_true(recipe, monkeypatch):
    monkeypatch.chdir(recipe)
    done = doctest.testfile(str(PAGE), module_relative=False)
    assert done.failed == 0 and done.attempted > 40


def test_voices_are_found_where_they_are(clips):
    """Nearly all that is spoken, hardly any pause, in segments of up to 10 s."""
    pause = np.zeros(2 * SAMPLE_RATE, np.float32)
    parts = [part for clip in (clips * 9)[:30] for part in (clip, pause)]
    spoken = np.concatenate([np.full(len(x), x is not pause) for x in parts])
    spans = speech_spans(np.concatenate(parts), 10 * SAMPLE_RATE, 0.4)
    found = np.zeros(len(spoken), bool)
    for start, end in spans:
        assert 0 < end - start <= 10 * SAMPLE_RATE
        found[start:end] = True
    assert found[spoken].mean() > 0.7 and found[~spoken].mean() < 0.15
    assert len(spans) >= 25


def test_speech_without_a_pause_is_cut_in_time(clips):
    """Across the minutes that are read side by side, too."""
    without = np.concatenate((clips * 99)[: 90 * SAMPLE_RATE // min(map(len, clips))])
    without = np.tile(without, 2)[: 90 * SAMPLE_RATE]
    spans = speech_spans(without, 8 * SAMPLE_RATE, 3.0)
    assert max(end - start for start, end in spans) <= 8 * SAMPLE_RATE
    assert sum(end - start for start, end in spans) > 0.8 * len(without)


HOURS = """
import resource, sys
from espnet_lora_experts import Speech2Text
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
speech2text = Speech2Text.from_pretrained("exp/kd", max_tokens=4, batch_seconds=40)
result = speech2text(sys.argv[1])
print(peak(), len(result.segments), result.segments[-1].end)
"""


def test_memory_is_the_samples_and_a_batch(recipe, clips, tmp_path):
    """Of two hours at 44.1 kHz in stereo with little speech, against ten minutes."""
    import soundfile

    rate, peaks = 44_100, {}
    speech = np.concatenate(clips)[: 9 * SAMPLE_RATE]
    minute = np.zeros((60 * rate, 2), np.float32)
    times = np.arange(len(speech) * rate // SAMPLE_RATE) * SAMPLE_RATE / rate
    said = np.interp(times, np.arange(len(speech)), speech)
    minute[5 * rate :][: len(said)] = said[:, None]
    for minutes in (10, 120):
        path = tmp_path / f"{minutes}.flac"
        with soundfile.SoundFile(path, "w", rate, 2) as file:
            for _ in range(minutes):
                file.write(minute)
        command = [sys.executable, "-c", HOURS, str(path)]
        done = subprocess.run(command, cwd=recipe, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        peak, count, end = map(float, done.stdout.split())
        assert count >= minutes and 60 * (minutes - 1) < end < 60 * minutes
        peaks[minutes] = peak
    samples = 110 * 60 * SAMPLE_RATE * 4 / 2**20  # MiB
    assert peaks[120] - peaks[10] < 1.5 * samples + 400
