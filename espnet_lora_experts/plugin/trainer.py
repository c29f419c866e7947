"""ESPnet's trainer, with strict resume and an export of the finished system."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from espnet2.train.reporter import Reporter
from espnet2.train.trainer import Trainer

from espnet_lora_experts.plugin.progress import Progress
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.systems import MoLE, Single


class ExpertTrainer(Trainer):
    """ESPnet's trainer; afterwards the best model becomes a system's folder."""

    @classmethod
    def build_options(cls, args):
        """ESPnet's options; one best model is kept, not an average of several.

        The average of A and the average of B are not the average of BA.
        """
        nbest = args.keep_nbest_models
        most = max(nbest) if isinstance(nbest, list | tuple) and nbest else nbest
        if args.model != "whisper_full" and most != 1:
            logging.warning(f"keep_nbest_models: {nbest} becomes 1 for LoRA factors")
            args.keep_nbest_models = 1
        return super().build_options(args)

    @staticmethod
    def resume(checkpoint, *args, **kwargs):
        """Resumes, from the epoch before where the last checkpoint is broken.

        ESPnet writes ``checkpoint.pth`` in its place: a process that is killed
        meanwhile leaves half a file.

        Raises:
            ValueError: The checkpoint is broken and there is none before it, or it is
                of another model or optimizer. Says what to do.
        """
        try:
            Trainer.resume(checkpoint, *args, **kwargs)
        except Exception as error:  # a damaged file can end in any of them
            before = _before(checkpoint)
            if before.exists() and not _is_whole(checkpoint):
                logging.warning(f"{checkpoint} is broken; resuming from {before}")
                ExpertTrainer.resume(before, *args, **kwargs)
                return
            raise ValueError(
                f"{checkpoint} must be a whole checkpoint of this model, but is not "
                f"({type(error).__name__}: {error}); give another --output_dir (a "
                f"recipe's --expdir), or remove {Path(checkpoint).parent} to train "
                "from the start"
            ) from error

    @classmethod
    def run(cls, model, trainer_options, distributed_option, **kwargs) -> None:
        """Trains, then exports the best epoch next to the checkpoints.

        Raises:
            ConnectionError: Another process of a distributed training has ended.
        """
        with _lost_process():
            super().run(
                model=model,
                trainer_options=trainer_options,
                distributed_option=distributed_option,
                **kwargs,
            )
        if distributed_option.distributed and distributed_option.dist_rank != 0:
            return
        output_dir = Path(trainer_options.output_dir)
        best = cls._best(output_dir, trainer_options)
        model.load_state_dict(torch.load(best, map_location="cpu", weights_only=True))
        facts = cls._facts(model, output_dir, trainer_options)
        model.export(output_dir, {**facts, "checkpoint": best.resolve().name})
        logging.info(f"exported {best.resolve().name} as the system {output_dir}")

    @classmethod
    def train_one_epoch(
        cls, iterator, reporter, options, distributed_option, **kwargs
    ) -> bool:
        """ESPnet's epoch, with the time left where its batches can be counted.

        The checkpoint of the epoch before is kept until its end.
        """
        last = Path(options.output_dir) / "checkpoint.pth"
        if not distributed_option.dist_rank and last.exists():
            copy = last.with_suffix(".copying")
            shutil.copyfile(last, copy)
            copy.replace(_before(last))
        if hasattr(iterator, "__len__"):
            iterator = Progress(iterator, reporter.epoch, options.max_epoch)
        return super().train_one_epoch(
            iterator=iterator,
            reporter=reporter,
            options=options,
            distributed_option=distributed_option,
            **kwargs,
        )

    @staticmethod
    def _best(output_dir: Path, options) -> Path:
        for phase, key, _ in options.best_model_criterion:
            path = output_dir / f"{phase}.{key}.best.pth"
            if path.exists():
                return path
        raise FileNotFoundError(
            f"{output_dir} must have a best model of {options.best_model_criterion}, "
            "but has none; did an epoch finish?"
        )

    @staticmethod
    def _facts(model, output_dir: Path, options) -> dict:
        states = torch.load(
            output_dir / "checkpoint.pth", map_location="cpu", weights_only=False
        )
        reporter = Reporter()
        reporter.load_state_dict(states["reporter"])
        epochs = range(1, reporter.get_epoch() + 1)
        totals = [0] + [reporter.stats[i]["train"]["total_count"] for i in epochs]
        return {
            "epochs": len(epochs),
            "steps": sum((b - a) // options.accum_grad for a, b in pairwise(totals)),
            "trained_params": model.trained_params,
            "deployed_params": deployed_parameters(model.backbone, model.system),
        }


def _before(checkpoint: Path | str) -> Path:
    """Where the checkpoint of the epoch before is kept."""
    return Path(checkpoint).with_suffix(".before.pth")


def _is_whole(checkpoint: Path | str) -> bool:
    """Whether a file can be read to its end; its content may be of another model."""
    try:
        torch.load(checkpoint, map_location="meta", weights_only=False)
    except Exception:  # a damaged file can end in any of them
        return False
    return True


@contextmanager
def _lost_process() -> Iterator[None]:
    """Says what it means when a connection to another rank ends."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if not lost:
            raise
        raise ConnectionError(
            "all processes of a training must run to its end, but one has ended or no "
            f"longer answers ({error}); see the end of its log, and run the same "
            "command again: it resumes after the last whole epoch"
        ) from error


def deployed_parameters(backbone: Backbone, system) -> int:
    """Parameters needed to run a system: one LoRA folds into the backbone for free.

    A MoLE drops the experts of its merged layers and keeps one merged pair each.
    """
    bank = backbone.bank
    lora = {p for name in bank.names for _, p in bank.parameters_of(name)}
    whisper = sum(p.numel() for p in backbone.hf.parameters() if p not in lora)
    if isinstance(system, Single):
        return whisper
    total = whisper + sum(p.numel() for p in system.parameters())
    merged = getattr(system, "fusion", None)
    for i, name in enumerate(system.experts):
        for key, parameter in bank.parameters_of(name):
            layer = key.rsplit(".", 2)[0]
            if not isinstance(system, MoLE) or layer not in merged.index or i == 0:
                total += parameter.numel()
    return total - (merged.V_IN.numel() if merged is not None else 0)
