"""ESPnet's trainer, with strict resume and an export of the finished system."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from espnet2.train.reporter import Reporter
from espnet2.train.trainer import Trainer

from espnet_lora_experts.plugin.progress import Progress
from espnet_lora_experts.plugin.resume import CHECKPOINT, keep, mend
from espnet_lora_experts.plugin.steps import Interrupt, Steps
from espnet_lora_experts.plugin.watch import Watch
from espnet_lora_experts.whisper.systems import deployed_parameters


class ExpertTrainer(Trainer):
    """ESPnet's trainer; afterwards the best model becomes a system's folder.

    Attributes:
        interrupt: Signals that end the training; ESPnet makes no trainer's object.
        watch: Of the numbers.
    """

    interrupt = Interrupt()
    watch = Watch()

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
        """Resumes, or says which file cannot be resumed from and what to do.

        Raises:
            ValueError: The checkpoint is broken, or of another model or optimizer.
        """
        try:
            Trainer.resume(checkpoint, *args, **kwargs)
        except Exception as error:  # a damaged file can end in any of them
            raise ValueError(
                f"{checkpoint} must be a whole checkpoint of this model, but is not "
                f"({type(error).__name__}: {error}); give another --output_dir (a "
                f"recipe's --expdir), or remove {Path(checkpoint).parent} to train "
                "from the start"
            ) from error

    @classmethod
    def run(cls, model, trainer_options, distributed_option, **kwargs) -> None:
        """Trains, then exports the best epoch next to the checkpoints.

        A run that was killed goes on after its last finished epoch, see
        :func:`~.resume.mend`; signals end it between two steps, see
        :class:`~.steps.Interrupt`; and numbers are looked at, see :mod:`.watch`.

        Raises:
            ConnectionError: Another process of a distributed training has ended.
            ValueError: The checkpoint cannot be resumed from, or numbers are not
                finite.
            SystemExit: A signal came.
        """
        cls.watch = Watch(model.languages, trainer_options.accum_grad)
        cls._mend(trainer_options, distributed_option)
        with cls.interrupt.caught(), _lost_process(cls.interrupt):
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

    @staticmethod
    def _mend(options, distributed_option) -> None:
        """The first process mends the files, all go on from them."""
        folder = Path(options.output_dir)
        if not options.resume:
            return
        if distributed_option.distributed:
            if distributed_option.dist_rank == 0:
                mend(folder, options)
            torch.distributed.barrier()
        if (over := mend(folder, options)) is not None:
            options.max_epoch = min(options.max_epoch, over)

    @classmethod
    def train_one_epoch(
        cls, model, iterator, reporter, options, distributed_option, **kwargs
    ) -> bool:
        """ESPnet's epoch; its numbers are looked at, and it can be stopped.

        The checkpoint of the epoch before is kept until its end. The time left is told
        where batches can be counted.
        """
        if not distributed_option.dist_rank:
            keep(Path(options.output_dir))
        if hasattr(iterator, "__len__"):
            iterator = Progress(iterator, reporter.epoch, options.max_epoch)
        cls.watch.begin()

        def after(taken: int, utts: list[str]) -> None:
            cls.watch.after(reporter, taken, utts)
            cls.interrupt.check(f"after step {taken} of epoch {reporter.epoch}")

        invalid = super().train_one_epoch(
            model=model,
            iterator=Steps(iterator, after),
            reporter=reporter,
            options=options,
            distributed_option=distributed_option,
            **kwargs,
        )
        cls.watch.end(reporter, alpha(getattr(model, "module", model)))
        return invalid

    @classmethod
    def validate_one_epoch(cls, iterator, reporter, **kwargs) -> None:
        """ESPnet's validation, likewise."""

        def after(taken: int, utts: list[str]) -> None:
            cls.interrupt.check(f"in the validation of epoch {reporter.epoch}")

        super().validate_one_epoch(
            iterator=Steps(iterator, after), reporter=reporter, **kwargs
        )
        cls.watch.after_validation(reporter)

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
            output_dir / CHECKPOINT, map_location="cpu", weights_only=False
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


@contextmanager
def _lost_process(interrupt: Interrupt) -> Iterator[None]:
    """Says what it means when a connection to another rank ends."""
    try:
        yield
    except RuntimeError as error:
        interrupt.check("as another process was")
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if not lost:
            raise
        raise ConnectionError(
            "all processes of a training must run to its end, but one has ended or no "
            f"longer answers ({error}); see the end of its log, and run the same "
            "command again: it resumes after the last whole epoch"
        ) from error


def alpha(model) -> dict[str, float]:
    """Each expert's mean share of a MoLE's merged layers; {} of other systems."""
    fusion = getattr(model.system, "fusion", None)
    if fusion is None:
        return {}
    mean_N = fusion.alpha_IN.detach().mean(dim=0).tolist()
    return dict(zip(fusion.experts, mean_N, strict=True))
