"""Threads take turns; a copy of a model waits for nobody."""

import copy
import pickle
import threading

import torch

from espnet_lora_experts.experts.bank import ExpertBank, lora_config
from espnet_lora_experts.experts.gate import everywhere
from espnet_lora_experts.experts.turn import Turn


def thread(work, *args):
    """A thread that has begun."""
    started = threading.Thread(target=work, args=args, daemon=True)
    started.start()
    return started


def test_another_thread_waits_and_the_same_does_not():
    turn, had = Turn(), []

    def take():
        with turn:
            had.append(True)

    with turn:
        with turn:
            waiting = thread(take)
        waiting.join(0.1)
        assert not had
    waiting.join(10)
    assert had


def test_a_copy_is_free():
    turn = Turn()
    with turn:
        for other in copy.deepcopy(turn), pickle.loads(pickle.dumps(turn)):
            taken = thread(other.__enter__)
            taken.join(10)
            assert not taken.is_alive()


def test_nobody_computes_with_weights_that_another_thread_folded():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False))
    bank, x = ExpertBank(model), torch.ones(1, 4)
    for seed, name in enumerate(("es", "ru")):
        bank.add(name, lora_config(2, target_modules=["0"]), seed)
        for _, parameter in bank.parameters_of(name):
            torch.nn.init.normal_(parameter)
    found = []

    def run(name):
        with bank.folded(lambda key: everywhere(name)), bank.using(everywhere(name)):
            found.append(model(x))

    run("ru")
    with bank.folded(lambda key: everywhere("es")):
        waiting = thread(run, "ru")
        waiting.join(0.1)
    waiting.join(10)
    assert torch.equal(*found)
