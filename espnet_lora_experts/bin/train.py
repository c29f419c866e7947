"""Trains experts, MoLE, student or baselines with ESPnet's trainer.

    python -m espnet_lora_experts.bin.train --config conf/train_expert.yaml \
        --backbone openai/whisper-tiny --model_conf languages='[es, ru]' ...

The options are those of ``espnet2.bin.asr_train`` plus ``--backbone`` and
``--sampler_conf``.
"""

from __future__ import annotations

from contextlib import contextmanager

import typeguard

from espnet_lora_experts.bin import cli


@contextmanager
def unchecked_types():
    """Imports ESPnet as it is written.

    Typeguard would rewrite each of its functions, at every start of every process:
    half of the time that its import takes.
    """
    typechecked = typeguard.typechecked
    typeguard.typechecked = lambda target=None, **_: target or (lambda later: later)
    try:
        yield
    finally:
        typeguard.typechecked = typechecked


with unchecked_types():
    from espnet_lora_experts.plugin.task import LoraExpertsTask


def get_parser():
    """The task's parser."""
    return LoraExpertsTask.get_parser()


def main(cmd=None) -> None:
    """Runs the task."""
    LoraExpertsTask.main(cmd=cmd)


if __name__ == "__main__":  # not so in the processes that ESPnet starts for its GPUs
    cli.run(main)
