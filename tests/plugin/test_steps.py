"""A signal ends an epoch after a step; its handlers are as before afterwards."""

import os
import signal

import pytest

from espnet_lora_experts.plugin.steps import SIGNALS, Interrupt, Steps


def test_each_step_is_looked_at_when_it_is_over():
    seen = []
    steps = Steps([(["a"], 1), (["b"], 2)], lambda *x: seen.append(("after", *x)))
    for utts, _ in steps:
        seen.append(("step", utts))
    assert seen == [
        ("step", ["a"]),
        ("after", 1, ["a"]),
        ("step", ["b"]),
        ("after", 2, ["b"]),
    ]
    assert len(steps) == 2
    with pytest.raises(TypeError):
        len(Steps(iter([]), print))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_at_the_next_step_with_the_shells_status(number, caplog):
    interrupt = Interrupt()
    before = [signal.getsignal(x) for x in SIGNALS]
    taken = []
    with pytest.raises(SystemExit) as caught, interrupt.caught():
        batches = [([], n) for n in range(5)]
        for _, n in Steps(batches, lambda n, utts: interrupt.check(f"after step {n}")):
            taken.append(n)
            if n == 2:
                os.kill(os.getpid(), number)
    assert taken == [0, 1, 2] and caught.value.code == 128 + number
    assert "after step 3; the same command again resumes" in caplog.text
    assert [signal.getsignal(x) for x in SIGNALS] == before


def test_a_second_signal_has_its_own_effect():
    # Where the tests run in a shell's background, SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt = Interrupt()
    with pytest.raises(KeyboardInterrupt), interrupt.caught():
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.received == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_without_a_signal_nothing_happens():
    interrupt = Interrupt()
    with interrupt.caught():
        interrupt.check("anywhere")
