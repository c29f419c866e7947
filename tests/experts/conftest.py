"""A model of two linear layers with three experts in it."""

import copy

import pytest
import torch
from torch import nn

from espnet_lora_experts.experts import product as products
from espnet_lora_experts.experts.bank import ExpertBank

TARGETS = ["first", "second"]


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.second(self.first(x).tanh())


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TwoLayers()


@pytest.fixture
def base(model):
    """The model as it is before a bank takes it."""
    return copy.deepcopy(model).requires_grad_(False)


@pytest.fixture
def bank(model, base, add_random):
    bank = ExpertBank(model)
    add_random(bank, ["es", "ru", "ja"], r=2, scale=1, target_modules=TARGETS)
    return bank


@pytest.fixture
def one_library(monkeypatch):
    """Products by the library that torch itself calls, whatever the processor."""
    monkeypatch.setattr(products, "mkl_is_slow", lambda: False)


@pytest.fixture
def x():
    return torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def merged(base):
    """Adds weight changes, by layer, to a copy of the base; gives the copy."""

    def merge(delta_of):
        copied = copy.deepcopy(base)
        for name in TARGETS:
            layer = getattr(copied, name)
            delta = delta_of(name)
            if delta is not None:
                layer.weight.data += delta
        return copied

    return merge


@pytest.fixture
def product(bank):
    """Weight change of one expert in one layer, by plain arithmetic."""

    def of(name, key):
        A_RD, B_OR = bank.layers[key].factors(name)
        return (B_OR @ A_RD).detach()

    return of
