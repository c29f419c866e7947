"""A small run: three systems on forty utterances of two languages."""

import pytest

from espnet_lora_experts.report import results
from espnet_lora_experts.report.results import Decoded, System

REFERENCES = [f"uno dos tres {n}" for n in range(40)]
LANGS = ["es", "fr"] * 20


@pytest.fixture(scope="session")
def output():
    """Decoded texts of which the first few have an error in each of four words."""

    def make(wrong, found=None):
        texts = ["x x x x" if n < wrong else text for n, text in enumerate(REFERENCES)]
        return Decoded(LANGS, REFERENCES, texts, found)

    return make


@pytest.fixture(scope="session")
def run(output):
    """The results dict, and texts by system and mode; multi takes es for fr once."""
    one_wrong = ["fr", *LANGS[1:]]
    systems = {
        "multi": {"aware": output(16), "agnostic": output(16, one_wrong)},
        "kd": {"aware": output(8), "agnostic": output(15, LANGS)},
        "mono": {"aware": output(2)},
    }
    built = {name: System(1, 2, 3, modes) for name, modes in systems.items()}
    decoded = {(n, m): x for n, modes in systems.items() for m, x in modes.items()}
    meta = {"backbone": "a/b", "utterances": {"test": 40}}
    return results.build(built, meta), decoded
