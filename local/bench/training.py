"""Rows about training: steps of ours against steps of peers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
import peft
import torch
from peft.tuners import lora
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from bench.harness import Contest, row
from bench.world import LANGS, World, about, contest, seconds
from espnet_lora_experts.experts.bank import TARGETS
from espnet_lora_experts.experts.layer import adapter_name
from espnet_lora_experts.experts.product import linear
from espnet_lora_experts.whisper import hub, languages

STUDENT_RANK = 64
FIELDS = ("speech", "speech_lengths", "text", "text_lengths", "lang")


def steps(model, batches: Sequence[dict]):
    """Work: one optimizer step for each batch."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)  # as in the recipes

    def work():
        for batch in batches:
            optimizer.zero_grad()
            model(**batch)[0].backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()

    return work


@row(
    "train_hf",
    "one expert, natural length",
    "HF Seq2SeqTrainer + PEFT, 30 s padding",
    faster=6.0,
)
def train_hf(world: World) -> Contest:
    clips = world.pick(24, ["es"])
    model = world.model("lora_expert", ["es"])
    ours = steps(model, world.batches(clips))
    return contest(clips, ours, hf_trainer(world, clips))


def hf_trainer(world: World, clips):
    """One epoch of Hugging Face's trainer over the clips, batches of eight."""
    folder = hub.resolve(world.backbone)
    extract = WhisperFeatureExtractor.from_pretrained(folder)
    whisper = WhisperForConditionalGeneration.from_pretrained(folder)
    config = peft.LoraConfig(r=32, lora_alpha=32, target_modules=list(TARGETS))
    model = peft.get_peft_model(whisper, config)

    def collate(batch):
        features = extract([c.speech for c in batch], sampling_rate=16_000)
        ids = [
            [*world.prompter.prompt(c.lang)[1:], *world.prompter.encode(c.text, c.lang)]
            for c in batch
        ]
        longest = max(map(len, ids)) + 1
        labels = torch.full((len(ids), longest), -100)
        for label, own in zip(labels, ids, strict=True):
            label[: len(own) + 1] = torch.tensor([*own, world.prompter.eot])
        inputs = torch.tensor(np.array(features["input_features"]))
        return {"input_features": inputs, "labels": labels}

    args = Seq2SeqTrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="hf"),
        per_device_train_batch_size=8,
        num_train_epochs=1,
        learning_rate=1e-4,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=world.device == "cpu",
        bf16=world.autocast == "bfloat16",
    )
    trainer = Seq2SeqTrainer(model, args, collate, train_dataset=list(clips))
    return trainer.train


@row(
    "train_peft",
    "our expert layer",
    "plain peft LoRA in our natural-length backbone, same loss",
    faster=1.0,
)
def train_peft(world: World) -> Contest:
    clips = world.pick(48, ["es"])
    batches = world.batches(clips)
    model, plain = (world.model("lora_expert", ["es"]) for _ in range(2))
    for layer in plain.backbone.bank.layers.values():
        layer.__class__ = lora.Linear  # PEFT's own forward, the same weights
        layer.set_adapter(adapter_name("es"))
    return contest(clips, steps(model, batches), steps(plain, batches))


def mixed(world: World, bank: int) -> Contest:
    """A bank of experts on clips of up to eight languages, against one expert."""
    others = sorted({x.code for x in languages.WHISPER} - set(LANGS))
    codes = [*LANGS, *others][:bank]
    clips = world.pick(48, LANGS[:bank])
    batches = world.batches(clips)
    many = world.model("lora_expert", codes)
    one = world.model("lora_expert", codes, expert="multi", r=32)
    return contest(clips, steps(many, batches), steps(one, batches))


for _bank in (2, 8, 32):
    row(
        f"train_mixed_{_bank}",
        f"hard gate, bank of {_bank}, languages mixed in a batch",
        "a single expert, same tokens",
        dearer=1.15,
    )(lambda world, bank=_bank: mixed(world, bank))


@row(
    "train_joint",
    "8 experts in one job, mixed batches",
    "8 jobs one after the other, same utterances",
    dearer=1.05,
)
def train_joint(world: World) -> Contest:
    clips = world.pick(160)
    model = world.model("lora_expert")
    joint = steps(model, world.batches(clips))
    apart = steps(world.model("lora_expert"), world.batches(clips, mixed=False))
    return contest(clips, joint, apart)


@row(
    "train_joint_whole",
    "the same job, its start included",
    "the 8 jobs, their starts included",
    dearer=1.0,
)
def train_joint_whole(world: World) -> Contest:
    """A start builds the model: here without ESPnet's imports, 5 s for each job."""
    clips = world.pick(160)

    def job(langs: Sequence[str]):
        own = [clip for clip in clips if clip.lang in langs]
        steps(world.model("lora_expert", langs), world.batches(own))()

    return contest(clips, lambda: job(LANGS), lambda: [job([lang]) for lang in LANGS])


@row("kd_step", "distillation step", "plain student step", dearer=1.6, memory=1.3)
def kd_step(world: World) -> Contest:
    return against_student(world, "lora_distill", r=STUDENT_RANK)


@row("mole_step", "MoLE step", "plain student step", dearer=1.1)
def mole_step(world: World) -> Contest:
    return against_student(world, "lora_mole")


def against_student(world: World, name: str, **conf) -> Contest:
    """A model with eight frozen experts against the pooled LoRA of student's rank."""
    clips = world.pick(48)
    batches = world.batches(clips)
    model = world.model(name, experts=world.experts, **conf)
    student = world.model("lora_expert", expert="multi", r=STUDENT_RANK)
    return contest(clips, steps(model, batches), steps(student, batches))


@row(
    "train_flops",
    "training step of one expert: its needed operations",
    "as many operations in torch's products of 2048 x 2048",
    faster=0.6,
)
def train_flops(world: World) -> Contest:
    return against_products(world, torch.matmul)


@row(
    "train_flops_linear",
    "the same",
    "the same by the library that we take (differs on AMD's processors)",
    faster=0.6,
)
def train_flops_linear(world: World) -> Contest:
    return against_products(world, linear)


def against_products(world: World, product) -> Contest:
    clips = world.pick(48, ["es"])
    model, batches = world.model("lora_expert", ["es"], r=32), world.batches(clips)
    needed = sum(needed_operations(model, batch, rank=32) for batch in batches)
    dtype = (
        torch.float32 if world.autocast == "none" else getattr(torch, world.autocast)
    )
    a, b = torch.randn(2, 2048, 2048, device=world.device).to(dtype)

    def products():
        for _ in range(round(needed / (2 * 2048**3))):
            product(a, b)

    note = f"{about(clips)}, {needed / 1e9:.0f} GFLOP"
    return Contest(steps(model, batches), products, seconds(clips), note, counted=False)


def needed_operations(model, batch: dict, rank: int) -> float:
    """Operations of a step that no implementation can leave out.

    Valid positions only, no padding and nothing twice. Forward: all products. Backward:
    the input's gradient of every frozen product, both gradients of LoRA's, and twice
    the forward of attention; nothing behind the first layer's input.
    """
    config = model.backbone.config
    width, mels = config.d_model, config.num_mel_bins
    inputs = model.batch(*(batch[k] for k in FIELDS))
    positions = [int(frames) // 2 for frames in inputs.frames_B]
    tokens = [int(length) for length in batch["text_lengths"]]
    P, U = sum(positions), sum(tokens)
    convolutions = 2 * 3 * (mels * 2 + width) * width * P
    # in units of width^2: attention's four products and the two of the feed-forward
    ffn = 2 * config.encoder_ffn_dim / width
    encoder = 2 * (4 + ffn) * width**2 * P * config.encoder_layers
    decoder = 2 * (6 + ffn) * width**2 * U * config.decoder_layers
    decoder += 2 * 2 * width**2 * P * config.decoder_layers  # keys, values of P
    counted = int(inputs.counted(model.language_loss).sum())
    vocabulary = 2 * config.vocab_size * width * counted
    share = rank * (2 * 4 + 2 * (1 + ffn / 2)) / (width * (4 + ffn))
    lora = share * (encoder + decoder)
    attention = 4 * width * config.encoder_layers * sum(p * p for p in positions)
    pairs = zip(positions, tokens, strict=True)
    seen = sum(u * (p + u / 2) for p, u in pairs)
    attention += 4 * width * config.decoder_layers * seen
    forward = encoder + decoder + vocabulary
    return convolutions + 2 * forward + 3 * (lora + attention)
