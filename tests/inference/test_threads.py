"""Calls from several threads say what calls one after the other say."""

import sys
import threading

import numpy as np
import pytest

from espnet_lora_experts.inference import Speech2Text, voice

LANGS = ["ru", "es", "ru", "ja", "es"]


def at_once(*works):
    """What works return that begin together, each in a thread of its own."""
    found = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(i):
        barrier.wait()
        found[i] = works[i]()

    threads = [
        threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(works))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return found


@pytest.fixture(autouse=True)
def hurry():
    """Threads give way to each other often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


def test_threads_share_a_recognizer_and_recognizers_a_whisper(folders, whisper, clips):
    mono, multi, mole = (
        Speech2Text.from_pretrained(folders[name], whisper)
        for name in ("mono", "multi", "mole")
    )
    works = [lambda lang=lang: mono(clips, lang) for lang in ("es", "ru", "ja")]
    works += [lambda: mono(clips, LANGS), lambda: multi(clips), lambda: mole(clips)]
    works += [lambda: multi.find_languages(clips)]
    serial = [work() for work in works]
    assert serial[0] != serial[1]
    assert at_once(*works) == serial


@pytest.fixture
def meanwhile():
    """A ``progress`` that once begins work in another thread, and does not wait."""
    begun = []

    def start(work):
        def progress(done):
            if not begun:
                begun.append(threading.Thread(target=work, daemon=True))
                begun[0].start()
                begun[0].join(0.2)
                assert begun[0].is_alive()

        return progress

    yield start
    begun[0].join(60)


def test_a_switch_waits_for_the_call(load, clips, meanwhile):
    """After the first language's batch, another thread asks for one expert for all."""
    mono = load("mono")
    expected = mono(clips, LANGS)
    switch = meanwhile(lambda: mono.experts.use("ru"))
    assert mono(clips, LANGS, switch) == expected


def test_an_expert_is_added_and_dropped_between_calls(load, folders, clips, meanwhile):
    multi = load("multi")
    expected = multi(clips)

    def come_and_go():
        multi.experts.add("other", folders["mono"] / "experts/ja")
        multi.experts.drop("other")

    assert multi(clips, progress=meanwhile(come_and_go)) == expected


def test_finders_of_each_other_do_not_wait_for_each_other(load, clips):
    one, other = load("multi"), load("vanilla")
    one.two_pass(finder=other)
    other.two_pass(finder=one)
    serial = [one(clips), other(clips)]
    works = [lambda: one(clips), lambda: other(clips)]
    assert at_once(*works * 2) == serial * 2


def test_voices_are_heard_one_after_the_other():
    """Its model remembers what it heard: of one recording only."""
    rng = np.random.RandomState(0)
    noises = [rng.uniform(-1, 1, 2 * 16_000).astype(np.float32) for _ in range(4)]
    works = [lambda noise=noise: voice.speech_probabilities(noise) for noise in noises]
    serial = [work() for work in works]
    for found, expected in zip(at_once(*works), serial, strict=True):
        assert np.array_equal(found, expected)
