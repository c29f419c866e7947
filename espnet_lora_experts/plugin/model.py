"""The four models ESPnet trains: experts, MoLE, distillation, full fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_lora_experts.experts.bank import TARGETS, lora_config
from espnet_lora_experts.experts.distill import cosine_loss_B, student_factors
from espnet_lora_experts.experts.layer import ExpertLinear
from espnet_lora_experts.experts.store import WEIGHTS, load_expert
from espnet_lora_experts.plugin.base import Terms, WhisperModel
from espnet_lora_experts.plugin.batch import Batch
from espnet_lora_experts.plugin.extend import extend_mole, extend_student
from espnet_lora_experts.whisper.systems import (
    Experts,
    MoLE,
    Single,
    System,
    decode,
    encode,
)


class LoraExpertModel(WhisperModel):
    """LoRA experts, one for each language, or one pooled LoRA for all of them.

    With several languages the experts train side by side in mixed batches; each gets
    gradients from its own utterances only, and none where a batch lacks its language.

    Args:
        languages: The target languages.
        expert: ``language`` for one expert each, or the name of one shared LoRA
            (``multi``), which then also learns to find the language.
        r: Rank.
        lora_alpha: Scale is ``lora_alpha / r``; None means 1, the paper's.
        target_modules: PEFT's ``target_modules``.
        shared_init: Start all experts from the same A, so that factors stay comparable.
        seed: Of the A matrices.
        kwargs: See :class:`WhisperModel`.
    """

    def __init__(
        self,
        languages: Sequence[str],
        expert: str = "language",
        r: int = 32,
        lora_alpha: int | None = None,
        target_modules: Sequence[str] = TARGETS,
        shared_init: bool = True,
        seed: int = 0,
        **kwargs,
    ):
        each = expert == "language"
        super().__init__(languages=languages, language_loss=not each, **kwargs)
        names = self.languages if each else [expert]
        for i, name in enumerate(names):
            config = lora_config(r, lora_alpha, target_modules)
            self.backbone.bank.add(name, config, seed if shared_init else seed + i)
        system = Experts(names) if each else Single(self.languages, expert)
        parameters = [p for n in names for _, p in self.backbone.bank.parameters_of(n)]
        self.use_system(system, parameters)


class WhisperFullModel(WhisperModel):
    """Full fine-tuning: everything but the encoder's fixed positions. A baseline."""

    def __init__(self, languages: Sequence[str], **kwargs):
        super().__init__(languages=languages, language_loss=True, **kwargs)
        fixed = self.backbone.hf.model.encoder.embed_positions.weight
        trained = [p for p in self.backbone.hf.parameters() if p is not fixed]
        self.use_system(System(self.languages), trained)


class LoraMoleModel(WhisperModel):
    """LoRA MoLE: learns the merging weights V and the router, nothing else.

    ``loss = (LID cross-entropy + ASR loss) / 2``, routing by the true language in
    training. Source: https://arxiv.org/abs/2506.21555, Section 2.2.

    Args:
        languages: The target languages.
        experts: PEFT folder of each language's expert.
        merged_layers: L1, see :func:`number_of_layers`.
        combination: ``delta`` (exact) or ``factor`` (the paper's).
        pooling: The router's pooling: ``mean``, ``mean_std`` or ``attentive``.
        fusion_lr_scale: Learning rate of V in multiples of the router's: V starts at
            equal weights and has few steps to leave them.
        top_k: Experts of an utterance in decoding, see :class:`~.systems.MoLE`.
        extend: Folder of a MoLE of fewer languages to start from; see
            :func:`~.extend.extend_mole`.
        new_share: Share of each mixture that the added languages start with; None is an
            equal one.
        kwargs: See :class:`WhisperModel`.
    """

    def __init__(
        self,
        languages: Sequence[str],
        experts: Mapping[str, str],
        merged_layers: float = 0.25,
        combination: str = "delta",
        pooling: str = "mean",
        fusion_lr_scale: float = 1.0,
        top_k: int = 1,
        extend: str | None = None,
        new_share: float | None = None,
        **kwargs,
    ):
        super().__init__(languages=languages, language_loss=False, **kwargs)
        load_experts(self, experts)
        layers = number_of_layers(merged_layers, self.backbone.encoder_layers)
        self.fusion_lr_scale = fusion_lr_scale
        system = MoLE(
            self.backbone, self.languages, layers, combination, pooling, top_k
        )
        if extend is not None:
            extend_mole(self.backbone, system, extend, new_share)
        self.use_system(system, list(system.parameters()))

    def terms(self, batch: Batch) -> Terms:
        encoded = encode(
            self.backbone, self.system, batch.mel_BTM, batch.frames_B, batch.langs
        )
        terms = self.token_terms(
            decode(self.backbone, self.system, encoded, batch.ids_BU), batch
        )
        logits_BN = encoded.lid_logits_BN
        assert logits_BN is not None  # a MoLE always routes
        own_B = logits_BN.new_tensor(
            [self.languages.index(x) for x in batch.langs]
        ).long()
        lid_B = F.cross_entropy(logits_BN.float(), own_B, reduction="none")
        hit_B = (logits_BN.argmax(dim=1) == own_B).float()
        loss_B = (lid_B + terms.pop("loss_tokens")) / 2
        return {"loss": loss_B, **terms, "loss_lid": lid_B, "acc_lid": hit_B}

    def parameter_groups(self, lr: float) -> list[dict]:
        fusion = list(self.system.fusion.parameters())
        return [
            {"params": list(self.system.router.parameters())},
            {"params": fusion, "lr": lr * self.fusion_lr_scale},
        ]


class LoraDistillModel(WhisperModel):
    """Layer-wise distillation of the experts into one multilingual LoRA.

    ``loss = ASR + alpha / M (sum of 1 - cos over encoder and decoder layers + JS on the
    logits)`` with M terms. Teacher and student run layer by layer through the frozen
    backbone. Source: https://arxiv.org/abs/2506.21555, Section 2.3.

    Args:
        languages: The target languages.
        experts: PEFT folder of each language's expert, the teachers.
        r: Rank of the student.
        lora_alpha: Scale is ``lora_alpha / r``; None means 1.
        target_modules: PEFT's ``target_modules``.
        alpha: Weight of the distillation terms; see their sizes in the log's step 0.
        logits_only: Leave out the layers' cosine terms, keep the logits' divergence.
        interpolation_prob: Probability that a layer's input is the mean of student's
            and teacher's, drawn for each layer and step; training only.
        student_init: ``delta_svd``, ``factor_mean`` or ``zero``.
        extend: Folder of a student of fewer languages to start from instead.
        seed: Of the student's A.
        kwargs: See :class:`WhisperModel`.
    """

    STUDENT = "student"

    def __init__(
        self,
        languages: Sequence[str],
        experts: Mapping[str, str],
        r: int = 64,
        lora_alpha: int | None = None,
        target_modules: Sequence[str] = TARGETS,
        alpha: float = 1.0,
        logits_only: bool = False,
        interpolation_prob: float = 0.5,
        student_init: str = "delta_svd",
        extend: str | None = None,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(languages=languages, language_loss=True, **kwargs)
        load_experts(self, experts)
        bank = self.backbone.bank
        config = lora_config(r, lora_alpha, target_modules)
        if extend is None:
            bank.add(self.STUDENT, config, seed)
            layers = bank.layers.values()
            start_student(layers, self.STUDENT, self.languages, student_init)
        else:
            extend_student(self.backbone, self.STUDENT, extend, self.languages, config)
        self.alpha, self.logits_only = alpha, logits_only
        self.interpolation_prob = interpolation_prob
        self.teacher = Experts(self.languages)
        trained = [p for _, p in bank.parameters_of(self.STUDENT)]
        self.use_system(Single(self.languages, self.STUDENT), trained)

    def terms(self, batch: Batch) -> Terms:
        y_BUD, teacher_BUD, layer_terms = self._lockstep(batch)
        distilled = {} if self.logits_only else layer_terms
        weight = self.alpha / (len(distilled) + 1)
        terms = self.token_terms(y_BUD, batch, teacher_BUD, weight)
        cosine = sum(distilled.values())
        loss_B = terms.pop("loss_tokens") + weight * cosine
        kd_B = (cosine + terms["loss_js"]) / (len(distilled) + 1)
        return {"loss": loss_B, **terms, "loss_kd": kd_B, **layer_terms}

    def _lockstep(self, batch: Batch) -> tuple[Tensor, Tensor, Terms]:
        """Teacher and student layer by layer; last outputs and the cosine terms."""
        whisper = self.backbone
        x_BPD, valid_BP = whisper.embed(batch.mel_BTM, batch.frames_B)
        states, encoder_terms = self._stack(
            "encoder",
            whisper.encoder_layers,
            x_BPD,
            valid_BP,
            lambda who, i, x: whisper.encode_layer(
                i, x, valid_BP, who.encoder_gate(i, batch.langs)
            ),
        )
        encoded = {who: whisper.encoder_norm(x) for who, x in states.items()}
        (teacher, student), decoder_terms = self._stack_decoder(
            batch, encoded, valid_BP
        )
        return student, teacher, encoder_terms | decoder_terms

    def _stack_decoder(self, batch, encoded, valid_BP):
        whisper = self.backbone
        states, terms = self._stack(
            "decoder",
            whisper.decoder_layers,
            whisper.embed_tokens(batch.ids_BU),
            batch.text_BU,
            lambda who, i, y: whisper.decode_layer(
                i, y, encoded[who], valid_BP, who.decoder_gate(batch.langs)
            ),
        )
        return (states[self.teacher], states[self.system]), terms

    def _stack(self, name, depth, start, valid, layer):
        """Runs one stack; ``layer(who, i, x)`` is one layer of teacher or student."""
        teacher = student = start
        terms: Terms = {}
        for i in range(depth):
            with torch.no_grad():
                teacher = layer(self.teacher, i, teacher)
            student = layer(self.system, i, student)
            terms[f"loss_kd_{name}{i}"] = cosine_loss_B(teacher, student, valid)
            if i + 1 < depth and self._interpolates():
                student = (student + teacher) / 2
        return {self.teacher: teacher, self.system: student}, terms

    def _interpolates(self) -> bool:
        return self.training and float(torch.rand(())) < self.interpolation_prob


def number_of_layers(merged_layers: float, depth: int) -> int:
    """L1 as a number of encoder layers.

    Args:
        merged_layers: A number of layers, or as a float up to 1.0 a fraction of the
            depth (1 is one layer, 1.0 is all).
        depth: Encoder layers of the backbone.

    Raises:
        ValueError: Neither a whole number nor a fraction.

    Example:
        >>> [number_of_layers(merged, depth=4) for merged in (1, 1.0, 0.5, 3.0)]
        [1, 4, 2, 3]
    """
    if isinstance(merged_layers, float) and 0 < merged_layers <= 1:
        return max(1, round(merged_layers * depth))
    if merged_layers != merged_layers // 1:
        raise ValueError(
            "merged_layers must be a whole number of layers or a fraction of the depth "
            f"up to 1.0, but got {merged_layers}"
        )
    return int(merged_layers)


def load_experts(model: WhisperModel, experts: Mapping[str, str]) -> None:
    """Adds each language's expert to the model's bank.

    Raises:
        ValueError: A language has no expert.
    """
    missing = sorted(set(model.languages) - set(experts))
    if missing:
        raise ValueError(
            f"experts must name a folder for each of {model.languages}, but lacks "
            f"{missing}; train them first (stage 5)"
        )
    whisper = model.backbone
    for code in model.languages:
        path = Path(experts[code])
        folder = path.parent if path.name == WEIGHTS else path  # in a packed model
        load_expert(whisper.bank, code, folder, whisper.sha256)


def start_student(
    layers: Sequence[ExpertLinear], student: str, experts: Sequence[str], how: str
) -> None:
    """Sets the student's factors in every layer from the experts' average."""
    for layer in layers:
        fresh = layer.factors(student)
        pairs = [pair for name in experts if (pair := layer.factors(name)) is not None]
        if fresh is not None:
            layer.set_factors(student, *student_factors(pairs, fresh, how))
