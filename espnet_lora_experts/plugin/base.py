"""What all our ESPnet models share: loss terms per utterance, statistics, checkpoints.

Names of dimensions: B batch, S samples, T mel frames, M mel bins, U text positions,
Q counted text positions of the whole batch, D width, K vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.torch_utils.device_funcs import force_gatherable
from torch import Tensor

from espnet_lora_experts.experts.bank import count_parameters
from espnet_lora_experts.experts.distill import js_divergence, sequence_mean
from espnet_lora_experts.plugin import checkpoint
from espnet_lora_experts.plugin.batch import (
    Batch,
    require_positions,
    require_targets,
    shift,
    sort_rows,
)
from espnet_lora_experts.plugin.preprocessor import decode_languages
from espnet_lora_experts.whisper import languages as table
from espnet_lora_experts.whisper.folder import save_system
from espnet_lora_experts.whisper.precision import autocast_context, autocast_type
from espnet_lora_experts.whisper.prompt import EOT, SOT
from espnet_lora_experts.whisper.route import Route
from espnet_lora_experts.whisper.systems import (
    Encoded,
    System,
    decode,
    encode,
)

Terms = dict[str, Tensor]
"""Loss terms and statistics, one value per utterance, (B,)."""


class WhisperModel(ESPnetASRModel):
    """Base of the models: ``forward -> (loss, stats, weight)``, terms per utterance.

    Every term is a mean over one utterance's valid positions, the loss is the mean over
    the batch and ``weight`` its size: a mixed batch equals its utterances one by one
    and two ranks equal one.

    Args:
        languages: The target languages.
        language_loss: Learn to predict the language token too (so that the model can
            find the language itself); ``<|transcribe|><|notimestamps|>`` never count.
        autocast: Type of the matrix products, see :func:`~.precision.autocast_type`;
            losses are float32 always. ``none`` leaves it to ESPnet's ``use_amp``, which
            works on GPUs only.
        pad_to_30s_prob: Share of the training batches padded to 30 s, so that an
            exported model also works in decoders that always pad. The sampler does not
            know which: ``batch_bins`` bounds batches of natural length only.
        lsm_weight: Label smoothing.
        espnet: What ``ASRTask.build_model`` passes on.

    Raises:
        ValueError: An unknown language or autocast type.
    """

    def __init__(
        self,
        languages: Sequence[str],
        language_loss: bool,
        autocast: str = "none",
        pad_to_30s_prob: float = 0.0,
        lsm_weight: float = 0.0,
        **espnet,
    ):
        espnet |= {"ctc_weight": 0.0, "report_cer": False, "report_wer": False}
        super().__init__(sym_sos=SOT, sym_eos=EOT, **espnet)
        autocast_type(autocast, "cpu")
        self.languages = [table.get(code).code for code in languages]
        self.vocab = {token: i for i, token in enumerate(self.token_list)}
        self.language_loss, self.lsm_weight = language_loss, lsm_weight
        self.autocast, self.pad_to_30s_prob = autocast, pad_to_30s_prob
        self.backbone = self.encoder.backbone
        self.first_logged = False

    def use_system(self, system: System, trained: Sequence[torch.nn.Parameter]) -> None:
        """Sets the gates, freezes all but what is trained, logs their numbers."""
        self.encoder.system = self.decoder.system = self.system = system
        self.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        self.trained_params, _ = count_parameters(self)

    def terms(self, batch: Batch) -> Terms:
        """Terms of a batch; ``loss`` is trained on: here that of recognition alone."""
        terms = self.asr_terms(batch)
        return {"loss": terms.pop("loss_tokens"), **terms}

    def forward(
        self,
        speech: Tensor,
        speech_lengths: Tensor,
        text: Tensor,
        text_lengths: Tensor,
        lang: Tensor,
        lang_lengths: Tensor | None = None,
        **kwargs,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """ESPnet's contract.

        Args:
            speech: Waveforms, (B, S).
            speech_lengths: Samples of each, (B,).
            text: Prompt and text ids padded with ``ignore_id``, (B, U).
            text_lengths: Tokens of each, (B,).
            lang: Language codes, see :func:`~.preprocessor.encode_language`.
            lang_lengths: Unused.
            kwargs: ``utt_id`` and what else ESPnet passes.

        Returns:
            Loss, statistics, and the batch size as the weight of both.

        Raises:
            ValueError: A language that is no target, or a text longer than the decoder.
        """
        positions = self.backbone.config.max_target_positions
        require_positions(text_lengths.tolist(), positions, kwargs.get("utt_id"))
        batch = self.batch(speech, speech_lengths, text, text_lengths, lang)
        with autocast_context(self.autocast, speech.device.type):
            terms = self.terms(batch)
        weight = torch.tensor(float(len(batch.langs)), device=speech.device)
        stats = self._statistics(terms, batch.langs)
        self._log_first(stats)
        return force_gatherable((terms["loss"].mean(), stats, weight), speech.device)

    def batch(self, speech, speech_lengths, text, text_lengths, lang) -> Batch:
        """Features and shifted text of a batch, its rows sorted by language."""
        langs = decode_languages(lang)
        require_targets(langs, self.languages)
        langs, speech, speech_lengths, text, text_lengths = sort_rows(
            langs, speech, speech_lengths, text, text_lengths
        )
        pad = self.training and float(torch.rand(())) < self.pad_to_30s_prob
        with torch.no_grad():
            mel_BTM, frames_B = self.frontend(speech, speech_lengths, pad)
            if self.specaug is not None and self.training:
                mel_BTM, frames_B = self.specaug(mel_BTM, frames_B)
        return Batch(mel_BTM, frames_B, *shift(text, text_lengths, self.eos), langs)

    def asr_terms(self, batch: Batch) -> Terms:
        """Teacher-forced recognition under the system's gates with given languages."""
        encoded = encode(
            self.backbone, self.system, batch.mel_BTM, batch.frames_B, batch.langs
        )
        y_BUD = decode(self.backbone, self.system, encoded, batch.ids_BU)
        return self.token_terms(y_BUD, batch)

    def token_terms(
        self,
        y_BUD: Tensor,
        batch: Batch,
        teacher_BUD: Tensor | None = None,
        js_weight: float = 0.0,
    ) -> Terms:
        """Cross-entropy and accuracies from the last decoder layer's output.

        ``loss_tokens`` alone has a gradient: it is ``loss_asr + js_weight * loss_js``,
        added up where the scores of a position are made, so that they are multiplied
        back to its state once.

        Args:
            y_BUD: That output.
            batch: With the targets.
            teacher_BUD: A teacher's, for its divergence ``loss_js`` as well.
            js_weight: Weight of the divergence.
        """
        counted_BU, text_BU = batch.counted(self.language_loss), batch.text_BU
        targets_Q = batch.targets_BU[counted_BU]
        # a mean over the text positions as one over the counted positions
        share_B1 = counted_BU.sum(1, True) / text_BU.sum(1, True).clamp(min=1)
        js_weight_Q = (js_weight * share_B1 * text_BU)[counted_BU]

        def losses(at: slice, scores_bK: Tensor, *teacher: Tensor):
            loss_b = F.cross_entropy(
                scores_bK.float(),
                targets_Q[at],
                reduction="none",
                label_smoothing=self.lsm_weight,
            )
            found = [loss_b.detach(), hits(scores_bK, targets_Q[at])]
            for teacher_bK in teacher:
                js_b = js_divergence(teacher_bK, scores_bK)
                loss_b = loss_b + js_weight_Q[at] * js_b
                found.append(js_b.detach())
            return loss_b, *found

        others = [] if teacher_BUD is None else [teacher_BUD[counted_BU]]
        values = self.backbone.over_vocabulary(y_BUD[counted_BU], losses, others)
        values_BU = [spread(value_Q, counted_BU) for value_Q in values]
        names = ("loss_tokens", "loss_asr", "acc", "loss_js")
        over = (counted_BU, counted_BU, text_BU, text_BU)
        terms = {
            name: sequence_mean(value_BU, valid_BU)
            for name, value_BU, valid_BU in zip(names, values_BU, over, strict=False)
        }
        if self.language_loss:
            terms["acc_lid"] = self._language_hits(y_BUD[:, 0], batch.langs)
        return terms

    @torch.no_grad()
    def _language_hits(self, y_BD: Tensor, langs: Sequence[str]) -> Tensor:
        """1 where the best target-language token is the row's own, (B,)."""
        targets = sorted({table.token_id(code, self.vocab) for code in self.languages})
        best = self.backbone.logits(y_BD, targets).argmax(dim=-1).tolist()
        own = [table.token_id(code, self.vocab) for code in langs]
        hits = [targets[i] == x for i, x in zip(best, own, strict=True)]
        return torch.tensor(hits, dtype=torch.float32, device=y_BD.device)

    def _statistics(self, terms: Terms, langs: Sequence[str]) -> dict[str, Tensor]:
        """Means over the batch, and over each language's rows: ``loss_es``.

        ESPnet's reporter knows one weight for all of a step's statistics, the batch
        size. So a language's value of an epoch is the mean of its batches' means, not
        of its utterances; with several ranks, of the ranks that have the language.
        ``acc_lid_es`` is of validation only, to keep the lines of the log short.
        """
        stats = {name: value_B.detach().mean() for name, value_B in terms.items()}
        split = ("loss", "acc") if self.training else ("loss", "acc", "acc_lid")
        split = [name for name in split if name in terms]  # ranks need one order
        for code in self.languages:
            rows = [i for i, lang in enumerate(langs) if lang == code]
            for name in split:  # nan (no row) is left out by the reporter
                value_B = terms[name].detach().float()
                stats[f"{name}_{code}"] = value_B[rows].mean()
        return stats

    def _log_first(self, stats: dict[str, Tensor]) -> None:
        """Logs each term's size at the first step: it gives the weights a meaning."""
        if self.training and not self.first_logged:
            self.first_logged = True
            sizes = ", ".join(f"{name}={float(x):.4g}" for name, x in stats.items())
            logging.info(f"terms at the first step: {sizes}")

    def collect_feats(self, speech, speech_lengths, **kwargs) -> dict[str, Tensor]:
        """Features for ESPnet's statistics stage."""
        feats, feats_lengths = self.frontend(speech, speech_lengths)
        return {"feats": feats, "feats_lengths": feats_lengths}

    def encode(self, speech: Tensor, speech_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder states and their lengths, for ESPnet's own decoding."""
        encoded = self.encoded(speech, speech_lengths)
        return encoded.hidden_BPD, encoded.valid_BP.sum(dim=1)

    def encoded(
        self, speech: Tensor, speech_lengths: Tensor, route: Route | None = None
    ) -> Encoded:
        """What the encoder finds out; the decoder's gates follow its route.

        Args:
            speech: Waveforms, (B, S).
            speech_lengths: Samples of each, (B,).
            route: Language of each, if known.

        Raises:
            ValueError: A language that is no target.
        """
        if route is None and len(self.languages) == 1:
            route = self.languages * len(speech)
        require_targets(route or [], self.languages)
        features = self.frontend(speech, speech_lengths)
        encoded = encode(self.backbone, self.system, *features, route)
        self.decoder.route = encoded.route
        return encoded

    def parameter_groups(self, lr: float) -> list[dict]:
        """Groups of the trained parameters for the optimizer."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def state_dict(self, *args, **kwargs) -> dict[str, Tensor]:
        """The trained tensors only, and the backbone's hash."""
        return checkpoint.trained_state(self, self.backbone.sha256)

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """Loads :meth:`state_dict`'s tensors; keys and backbone are always checked."""
        checkpoint.load_trained_state(self, state_dict, self.backbone.sha256)
        logging.info(f"loaded {len(state_dict) - 1} trained tensors")

    def export(self, folder, facts: dict) -> None:
        """Writes the system as a folder that :class:`Speech2Text` loads."""
        save_system(folder, self.backbone, self.system, facts)


@torch.no_grad()
def hits(scores_CK: Tensor, targets_C: Tensor) -> Tensor:
    """1 where no token scores higher than the target, (C,); argmax would be slow."""
    target_C1 = scores_CK.gather(1, targets_C[:, None])
    return (target_C1 >= scores_CK.amax(dim=1, keepdim=True)).float()[:, 0]


def spread(value_Q: Tensor, counted_BU: Tensor) -> Tensor:
    """Values of the counted positions back in their places, 0 elsewhere, (B, U)."""
    zeros_BU = torch.zeros(counted_BU.shape, dtype=value_Q.dtype, device=value_Q.device)
    return zeros_BU.masked_scatter(counted_BU, value_Q)
