"""Where recordings are cut: all of what is heard, in order, never too long."""

import numpy as np
import pytest

from espnet_lora_experts.inference.segmentation import Segmentation, windows

RATE = 16_000


def noise(seconds):
    count = int(seconds * RATE)
    return np.random.RandomState(0).uniform(-0.5, 0.5, count).astype(np.float32)


@pytest.mark.parametrize("most", [1.0, 10.0, 28.0, 30.0])
@pytest.mark.parametrize("seconds", [30.1, 33.0, 57.7, 100.0])
def test_windows_are_the_recording_and_not_too_long(seconds, most):
    samples = noise(seconds)
    spans = windows(samples, int(most * RATE))
    assert spans[0][0] == 0 and spans[-1][1] == len(samples)
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    lengths = [end - start for start, end in spans]
    assert max(lengths) <= most * RATE
    assert min(lengths) > max(lengths) / 2  # no scrap at the end


def test_windows_are_cut_where_it_is_quiet():
    samples = noise(40)
    for pause in (12.0, 27.5):
        samples[int(pause * RATE) :][: RATE // 3] = 0
    spans = Segmentation("windows", 20.0)(samples)
    cuts = [start / RATE for start, _ in spans[1:]]
    assert len(cuts) == 2
    assert 12.0 < cuts[0] < 12.34 and 27.5 < cuts[1] < 27.84


@pytest.mark.parametrize("method", ["auto", "windows"])
def test_clips_of_up_to_30_s_stay_whole(method):
    for seconds in (0.01, 29.0, 30.0):
        samples = noise(seconds)
        assert Segmentation(method, 5.0)(samples) == [(0, len(samples))]


def test_windows_without_a_sound_are_left_out():
    samples = noise(90)
    samples[30 * RATE : 60 * RATE] = 0
    spans = Segmentation("windows", 10.0)(samples)
    assert spans[0][0] == 0 and spans[-1][1] == len(samples)
    gaps = [later - end for (_, end), (later, _) in zip(spans, spans[1:], strict=False)]
    assert sum(gap > 0 for gap in gaps) == 1 and max(gaps) > 10 * RATE


def test_a_quiet_voice_is_no_silence():
    quiet = 4e-4 * noise(1.0)
    assert Segmentation()(quiet) == [(0, RATE)]
    assert Segmentation()(-np.abs(quiet)) == [(0, RATE)]
    assert Segmentation()(1e-4 * noise(1.0)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "silence"}, r"segmentation must be one of \('auto'.*'silence'"),
        ({"max_segment": 31}, "max_segment must be 1 to 30 seconds, but got 31"),
        ({"max_segment": 0}, "max_segment must be 1 to 30 seconds, but got 0"),
        ({"min_pause": 0}, "min_pause must be 0.1 seconds or more, but got 0"),
    ],
)
def test_impossible_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Segmentation(**options)
