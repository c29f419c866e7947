"""Rows about decoding: ours against transformers, PEFT and ESPnet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext

import peft
import torch
from espnet.nets.batch_beam_search import BatchBeamSearch
from espnet.nets.scorer_interface import BatchScorerInterface
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from bench.harness import Contest, row, synchronize
from bench.world import LANGS, Clip, World, contest, shake
from espnet_lora_experts.experts.bank import lora_config
from espnet_lora_experts.experts.layer import adapter_name
from espnet_lora_experts.experts.store import load_expert
from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.plugin.shared import LoraExpertDecoder
from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.systems import Experts, Single

TOKENS = 24  # of each transcript, for all: the work must be the same


def experts(world: World) -> Speech2Text:
    """Eight experts in one Whisper, batches of 16."""
    backbone = Backbone.from_pretrained(world.backbone).to(world.device)
    for lang, folder in world.experts.items():
        load_expert(backbone.bank, lang, folder, backbone.sha256)
    return recognizer_of(world, backbone, Experts(LANGS))


def student(world: World) -> Speech2Text:
    """One LoRA of rank 64 for all languages."""
    backbone = Backbone.from_pretrained(world.backbone).to(world.device)
    backbone.bank.add("student", lora_config(64), 0)
    shake(p for _, p in backbone.bank.parameters_of("student"))
    return recognizer_of(world, backbone, Single(LANGS, "student"))


def recognizer_of(world: World, backbone: Backbone, system) -> Speech2Text:
    """Writes :data:`TOKENS` tokens for every clip, whatever it hears, in one batch."""
    speech2text = Speech2Text(
        backbone,
        system,
        world.prompter,
        batch_seconds=1e9,
        autocast=world.autocast,
        max_tokens=TOKENS,
        maxlenratio=0,
    )
    speech2text.recognizer.never_K[world.prompter.eot] = float("-inf")
    return speech2text


def recognize(speech2text: Speech2Text, clips: Sequence[Clip]):
    """Work: the clips as one list."""
    speech = [clip.speech for clip in clips]
    langs = [clip.lang for clip in clips]
    return lambda: speech2text(speech, langs)


def merged(world: World):
    """A whole Whisper in transformers."""
    folder = hub.resolve(world.backbone)
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    model.generation_config.forced_decoder_ids = None
    return model.to(world.device).eval()


def generate(world: World, model, clips: Sequence[Clip], **kwargs):
    """Work: transformers' greedy generation in one batch, 30 s padded."""
    extract = WhisperFeatureExtractor.from_pretrained(hub.resolve(world.backbone))

    @torch.no_grad()
    def work():
        speech = [clip.speech for clip in clips]
        features = extract(speech, sampling_rate=16_000, return_tensors="pt")
        inputs = features.input_features.to(world.device)
        with world.precision():
            return model.generate(inputs, **options(), **kwargs)

    return work


def options() -> dict:
    """Exactly :data:`TOKENS` tokens, greedily."""
    return {
        "language": "es",
        "task": "transcribe",
        "num_beams": 1,
        "do_sample": False,
        "max_new_tokens": TOKENS,
        "min_new_tokens": TOKENS,
    }


@row(
    "decode_hf",
    "greedy, batch 16, folded student",
    "HF generate, 30 s padding",
    faster=4.0,
)
def decode_hf(world: World) -> Contest:
    clips = world.pick(16)
    ours = recognize(student(world), clips)
    return contest(clips, ours, generate(world, merged(world), clips))


@row(
    "decode_hf_encoded",
    "greedy search, batch 16, after our encoder",
    "HF generate after our encoder",
    faster=1.3,
)
def decode_hf_encoded(world: World) -> Contest:
    clips = world.pick(16, equal=True)
    speech2text = student(world)
    langs = ["es"] * len(clips)
    with torch.no_grad():
        encoded = speech2text._encode([clip.speech for clip in clips], langs)
    model = merged(world)
    states = BaseModelOutput(last_hidden_state=encoded.hidden_BPD)

    @torch.no_grad()
    def ours():
        gate, bank = speech2text.system.folding, speech2text.backbone.bank
        with bank.folded(lambda key: gate(key, None)), world.precision():
            return speech2text.recognizer(encoded, langs)

    @torch.no_grad()
    def peer():
        with world.precision():
            return model.generate(encoder_outputs=states, **options())

    return contest(clips, ours, peer)


@row(
    "decode_queue",
    "queue of clips in 8 languages, sorted and folded",
    "the same queue, one merged model",
    dearer=1.1,
)
def decode_queue(world: World) -> Contest:
    clips = world.pick(480)
    ours, peer = experts(world), student(world)
    for speech2text in (ours, peer):
        speech2text.batch_seconds = 80.0
    return contest(clips, recognize(ours, clips), recognize(peer, clips))


def mixed_batch(world: World, clips: Sequence[Clip]):
    """Work: one batch of 16 in 8 languages, every gate computed in its layer."""
    speech2text = experts(world)
    langs = [clip.lang for clip in clips]
    speech = [clip.speech for clip in clips]

    @torch.no_grad()
    def work():
        encoded = speech2text._encode(speech, langs)
        with world.precision():
            return speech2text.recognizer(encoded, langs)

    return work


@row(
    "decode_mixed",
    "one batch of 16 in 8 languages, r = 32",
    "one merged model",
    dearer=1.3,
)
def decode_mixed(world: World) -> Contest:
    clips = world.pick(16)
    peer = recognize(student(world), clips)
    return contest(clips, mixed_batch(world, clips), peer)


@row(
    "decode_mixed_peft",
    "one batch of 16 in 8 languages, r = 32",
    "HF generate with PEFT's adapter_names, 30 s padding",
    faster=4.0,
)
def decode_mixed_peft(world: World) -> Contest:
    clips = world.pick(16)
    names = [f"x_{clip.lang}" for clip in clips]
    peer = generate(world, adapters(world), clips, adapter_names=names)
    return contest(clips, mixed_batch(world, clips), peer)


@row(
    "decode_mixed_peft_encoded",
    "encoder and decoder, 8 languages in a batch of 16, equal lengths",
    "our loop with PEFT's own mixed-batch layers (adapter_names)",
    faster=1.3,
)
def decode_mixed_peft_encoded(world: World) -> Contest:
    clips = world.pick(16, equal=True)
    names = [clip.lang for clip in clips]
    speech2text = experts(world)
    speech = [clip.speech for clip in clips]

    @torch.no_grad()
    def peer():
        with peft_rows(speech2text.backbone, names), world.precision():
            encoded = speech2text._encode(speech, names)
            return speech2text.recognizer(encoded, names)

    return contest(clips, mixed_batch(world, clips), peer)


@contextmanager
def peft_rows(backbone: Backbone, names: Sequence[str]):
    """Our layers obey PEFT's ``adapter_names`` instead of a gate."""
    bank = backbone.bank
    given = {"adapter_names": [adapter_name(name) for name in names]}
    hooks = [
        layer.register_forward_pre_hook(lambda _, x, kw: (x, given), with_kwargs=True)
        for layer in bank.layers.values()
    ]
    bank.using = lambda gate: nullcontext()
    try:
        yield
    finally:
        del bank.using
        for hook in hooks:
            hook.remove()


def adapters(world: World):
    """PEFT's model with the eight experts."""
    model = merged(world)
    names = iter(world.experts.items())
    first, folder = next(names)
    model = peft.PeftModel.from_pretrained(model, folder, adapter_name=f"x_{first}")
    for name, folder in names:
        model.load_adapter(folder, adapter_name=f"x_{name}")
    return model.eval()


class Plain(BatchScorerInterface, torch.nn.Module):
    """ESPnet's way: the decoder without a cache reads all tokens at every step."""

    def __init__(self, decoder: LoraExpertDecoder):
        super().__init__()
        self.decoder = decoder

    def batch_score(self, ys, states, xs):
        lengths = torch.full((len(xs),), xs.shape[1], device=xs.device)
        scores, _ = self.decoder(xs, lengths, ys, None)
        return scores[:, -1].log_softmax(-1), states


@row(
    "beam_espnet",
    "ESPnet's BeamSearch, beam 10, our cached batch_score",
    "the same search, decoder without cache",
    faster=5.0,
)
def beam_espnet(world: World) -> Contest:
    return beam(world, part=False)


@row(
    "beam_espnet_score",
    "the same, inside batch_score",
    "the same, inside batch_score",
    faster=10.0,
)
def beam_espnet_score(world: World) -> Contest:
    return beam(world, part=True)


def beam(world: World, part: bool) -> Contest:
    """60 tokens of a long clip; in part, only the time inside the scorer counts."""
    model = world.model("lora_expert", expert="multi", r=64).eval()
    clip = max(world.clips, key=lambda clip: len(clip.speech))
    with torch.no_grad():
        batch = world.batch([clip])
        hidden, _ = model.encode(batch["speech"], batch["speech_lengths"])

    def search(scorer):
        spent: list[float] = []
        found = BatchBeamSearch(
            scorers={"decoder": scorer},
            weights={"decoder": 1.0},
            beam_size=10,
            vocab_size=model.vocab_size,
            sos=world.prompter.sot,
            eos=world.prompter.eot,
        )
        found.set_hyp_primer(world.prompter.prompt(clip.lang))
        score = scorer.batch_score

        def batch_score(*args):
            start = time.perf_counter()
            scores = score(*args)
            synchronize()
            spent.append(time.perf_counter() - start)
            return scores

        scorer.batch_score = batch_score

        @torch.no_grad()
        def work():
            spent.clear()
            found(hidden[0], maxlenratio=-60, minlenratio=-59)
            return sum(spent) if part else None

        return work

    plain = search(Plain(model.decoder))
    return contest([clip], search(model.decoder), plain)
