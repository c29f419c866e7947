"""Trains experts, MoLE, student or baselines with ESPnet's trainer.

    python -m espnet_lora_experts.bin.train --config conf/train_expert.yaml \
        --backbone openai/whisper-tiny --model_conf languages='[es, ru]' ...

The options are those of ``espnet2.bin.asr_train`` plus ``--backbone`` and
``--sampler_conf``.
"""

from __future__ import annotations

from espnet_lora_experts.bin import cli
from espnet_lora_experts.plugin.task import LoraExpertsTask


def get_parser():
    """The task's parser."""
    return LoraExpertsTask.get_parser()


def main(cmd=None) -> None:
    """Runs the task."""
    LoraExpertsTask.main(cmd=cmd)


if __name__ == "__main__":  # not so in the processes that ESPnet starts for its GPUs
    cli.run(main)
