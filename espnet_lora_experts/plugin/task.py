"""The ESPnet task: registers our components and builds models, batches, optimizers."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
from espnet2.fileio.read_text import read_2columns_text
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
from espnet2.samplers.abs_sampler import AbsSampler
from espnet2.tasks import asr
from espnet2.tasks.abs_task import optim_classes
from espnet2.utils.nested_dict_action import NestedDictAction

from espnet_lora_experts.plugin.model import (
    LoraDistillModel,
    LoraExpertModel,
    LoraMoleModel,
    WhisperFullModel,
)
from espnet_lora_experts.plugin.preprocessor import WhisperPreprocessor
from espnet_lora_experts.plugin.sampler import LanguageSampler, ShardedSampler
from espnet_lora_experts.plugin.shared import (
    LogMelFrontend,
    LoraExpertDecoder,
    LoraExpertEncoder,
)
from espnet_lora_experts.plugin.tables import Table, compact
from espnet_lora_experts.plugin.trainer import ExpertTrainer

NAME = "whisper_experts"

asr.frontend_choices.classes["whisper_log_mel"] = LogMelFrontend
asr.encoder_choices.classes[NAME] = LoraExpertEncoder
asr.decoder_choices.classes[NAME] = LoraExpertDecoder
asr.preprocessor_choices.classes[NAME] = WhisperPreprocessor
asr.model_choices.classes |= {
    "lora_expert": LoraExpertModel,
    "lora_mole": LoraMoleModel,
    "lora_distill": LoraDistillModel,
    "whisper_full": WhisperFullModel,
}


class LoraExpertsTask(asr.ASRTask):
    """ASR with Whisper LoRA experts.

    ESPnet's ASR task with our components as defaults, ``--backbone`` for all of them,
    and batches of mixed languages (``--iterator_type task``).
    """

    trainer = ExpertTrainer

    @classmethod
    def add_task_arguments(cls, parser):
        """ESPnet's ASR options and ours."""
        super().add_task_arguments(parser)
        group = parser.add_argument_group(description="LoRA experts related")
        group.add_argument(
            "--backbone",
            default=None,
            help="Whisper: hub id (openai/whisper-tiny) or folder. Sets it for "
            "frontend, encoder, decoder and tokenizer at once; default: --bpemodel",
        )
        group.add_argument(
            "--sampler_conf",
            action=NestedDictAction,
            default={},
            help="Sampling of languages, e.g. --sampler_conf weights=uniform (or "
            "proportional, or weights='{zh: 1.0, ko: 0.25}')",
        )
        parser.set_defaults(
            frontend="whisper_log_mel",
            encoder=NAME,
            decoder=NAME,
            preprocessor=NAME,
            normalize=None,
            model="lora_expert",
            token_type="hugging_face",
            iterator_type="task",
        )

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False):
        """Besides ESPnet's: ``lang``, the language of each utterance."""
        return (*super().optional_data_names(train, inference), "lang")

    @classmethod
    def build_preprocess_fn(cls, args, train: bool):
        """The preprocessor, with the backbone's tokenizer."""
        cls._spread_backbone(args)
        return super().build_preprocess_fn(args, train)

    @classmethod
    def build_model(cls, args):
        """The model; ``config.yaml`` then names the backbone in every component."""
        cls._spread_backbone(args)
        return super().build_model(args)

    @staticmethod
    def _spread_backbone(args) -> None:
        backbone = getattr(args, "backbone", None) or args.bpemodel
        if backbone is None:
            return
        args.bpemodel = backbone
        for conf in (args.frontend_conf, args.encoder_conf, args.decoder_conf):
            conf["backbone"] = backbone

    @classmethod
    def build_optimizers(cls, args, model: torch.nn.Module):
        """An optimizer over the trained parameters only, in the model's own groups."""
        if not isinstance(args.optim_conf.get("lr"), int | float):
            raise ValueError(
                f"optim_conf must have a number as lr, but got {args.optim_conf} (YAML "
                "reads 3e-3 as text: write 3.0e-3)"
            )
        groups = model.parameter_groups(args.optim_conf["lr"])
        return [optim_classes[args.optim](groups, **args.optim_conf)]

    @classmethod
    def build_task_iter_factory(cls, args, iter_options, mode: str):
        """Batches by padded duration, languages sampled by weight (training only)."""
        return SequenceIterFactory(
            batches=_build_sampler(args, iter_options),
            dataset=compact(cls.build_dataset(args, iter_options)),
            seed=args.seed,
            num_iters_per_epoch=iter_options.num_iters_per_epoch,
            shuffle=iter_options.train,
            num_workers=args.num_workers,
            collate_fn=iter_options.collate_fn,
            pin_memory=args.ngpu > 0,
        )


def _build_sampler(args, iter_options) -> AbsSampler:
    data = iter_options.data_path_and_name_and_type
    world = torch.distributed.get_world_size() if iter_options.distributed else 1
    utt2lang = _read_utt2lang(data, args.preprocessor_conf.get("language"))
    lengths = _read_lengths(iter_options.shape_files, utt2lang, args.model_conf)
    sampler = LanguageSampler(
        lengths=_decodable(lengths, utt2lang, data, iter_options.preprocess_fn),
        utt2lang=utt2lang,
        batch_bins=iter_options.batch_bins,
        shuffle=iter_options.train,
        min_batch_size=world,
        **args.sampler_conf,
    )
    if world > 1:
        return ShardedSampler(sampler, torch.distributed.get_rank(), world)
    return sampler


def _read_lengths(shape_files, utt2lang, model_conf) -> dict[str, int]:
    """Samples of each utterance in the model's languages (a job may train but one)."""
    if not shape_files:
        raise ValueError(
            "--train_shape_file and --valid_shape_file must name speech_shape files, "
            "but got none; stage 4 writes them"
        )
    table = read_2columns_text(shape_files[0])
    wanted = {*model_conf["languages"], None}  # None: the sampler names them
    kept = {utt: shape for utt, shape in table.items() if utt2lang.get(utt) in wanted}
    if len(kept) < len(table):
        logging.info(
            f"{len(table) - len(kept)} utterance(s) are not in the model's languages "
            f"{model_conf['languages']} and are left out"
        )
    return {utt: int(shape.split(",")[0]) for utt, shape in kept.items()}


def _decodable(lengths, utt2lang, data, process) -> dict[str, int]:
    """Utterances whose text has room in decoder and speech; a warning counts others."""
    paths = [path for path, name, kind in data if (name, kind) == ("text", "text")]
    if not paths or not isinstance(process, WhisperPreprocessor):
        return lengths  # the model checks it in each batch
    long = {
        utt
        for utt, text in Table(paths[0]).rows()
        if utt in lengths
        and utt in utt2lang
        and not process.fits(text, utt2lang[utt], lengths[utt])
    }
    if long:
        logging.warning(
            f"{len(long)} utterance(s) have more tokens than the decoder's "
            f"{process.positions} positions, or than their speech can hold (one in 20 "
            "ms: the text must be another's), and are left out: "
            f"{', '.join(sorted(long)[:3])} ..."
        )
    return {utt: n for utt, n in lengths.items() if utt not in long}


def _read_utt2lang(data, language: str | None) -> dict[str, str]:
    """The language of each utterance; without a table all have the default one."""
    for path, name, _ in data:
        if name == "lang":
            table = read_2columns_text(path)
            return {utt: sys.intern(lang) for utt, lang in table.items()}
    if language is not None:
        return dict.fromkeys(read_2columns_text(data[0][0]), language)
    raise ValueError(
        "data must have languages: --train_data_path_and_name_and_type "
        f"{Path(data[0][0]).parent}/utt2lang,lang,text; or, where all are in one, "
        "preprocessor_conf: {language: ...}"
    )
