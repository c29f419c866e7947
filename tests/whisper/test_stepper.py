"""Step by step, with shared buffers and paths: the scores of the whole text at once."""

import pytest
import torch

from espnet_lora_experts.whisper import cross
from espnet_lora_experts.whisper.stepper import GROWTH, Stepper
from espnet_lora_experts.whisper.systems import Encoded, decode, encode


@pytest.fixture(params=[0, 10**6], autouse=True)
def overhead(request, monkeypatch):
    """The encoder's keys in one part, and each length in its own."""
    monkeypatch.setattr(cross, "OVERHEAD", request.param)
    return request.param


@pytest.fixture
def encoded(trio, system, mel, langs):
    with torch.no_grad():
        encoded = encode(trio, system, *mel, langs)
    return Encoded(encoded.hidden_BPD, encoded.valid_BP, langs)


def ids(*shape, seed=0):
    return torch.randint(0, 250, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def whole(backbone, system, encoded, ids_BT):
    """Scores after the last token, all of the text at once, (B, K)."""
    return backbone.logits(decode(backbone, system, encoded, ids_BT)[:, -1])


@torch.no_grad()
@pytest.mark.parametrize("cuts", [[4], [1, 3], [1, 2, 1]])
def test_prompt_in_parts_is_the_prompt(trio, system, encoded, cuts):
    stepper = Stepper(trio, system, encoded)
    prompt_BT = ids(4, 4)
    for part_BT in prompt_BT.split(cuts, dim=1):
        got_BK = stepper.prompt(part_BT)
    torch.testing.assert_close(got_BK, whole(trio, system, encoded, prompt_BT))


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_hypotheses_that_branch_and_die_keep_their_own_past(
    trio, system, encoded, beam, row_of
):
    """Random parents at every step, an utterance leaves: each path scored alone."""
    stepper = Stepper(trio, system, encoded, beam)
    prompt_BT = ids(4, 4)
    stepper.prompt(prompt_BT)
    texts = [[row.tolist()] * beam for row in prompt_BT]
    alive = [0, 1, 2, 3]
    for step in range(6):
        if step == 3:
            alive = [0, 2, 3]
            stepper.keep(alive)
        parents_BQ = ids(len(alive), beam, seed=step) % beam
        next_BQ = ids(len(alive), beam, seed=100 + step)
        stepper.follow(parents_BQ)
        got_BQK = stepper.step(next_BQ)
        for b, row in enumerate(alive):
            texts[row] = [
                [*texts[row][parent], token]
                for parent, token in zip(
                    parents_BQ[b].tolist(), next_BQ[b].tolist(), strict=True
                )
            ]
            for q, text in enumerate(texts[row]):
                alone = whole(trio, system, row_of(encoded, row), torch.tensor([text]))
                torch.testing.assert_close(
                    got_BQK[b, q], alone[0], atol=1e-4, rtol=1e-4
                )


@torch.no_grad()
def test_buffers_grow_without_loss(trio, encoded, system):
    """Past the room that was there at first; random tokens, one hypothesis."""
    trio.hf.model.decoder.embed_positions.weight.data = torch.randn(80, 16)
    stepper = Stepper(trio, system, encoded, beam=2)
    text_BT = ids(4, GROWTH + 9)
    stepper.prompt(text_BT[:, :4])
    for t in range(4, text_BT.shape[1]):
        got_BQK = stepper.step(text_BT[:, [t, t]])
    expected_BK = whole(trio, system, encoded, text_BT)
    for q in range(2):
        torch.testing.assert_close(got_BQK[:, q], expected_BK, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_keys_of_padding_are_held_only_where_that_is_cheaper(
    trio, system, encoded, overhead
):
    """Every utterance is in one part, and so is who stays when others leave."""
    lengths = encoded.valid_BP.sum(dim=1).tolist()
    parts = Stepper(trio, system, encoded).cross.parts
    assert len(parts) == (1 if overhead else len(set(lengths)))
    assert sorted(row for part in parts for row in part.rows) == [0, 1, 2, 3]
    for part in parts:
        held = part.layers[0][0].shape[2]
        assert held == max(lengths[row] for row in part.rows)
