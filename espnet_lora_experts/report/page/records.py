"""Sections that show what trainings and decodings left behind: losses and errors."""

from collections.abc import Mapping, Sequence

from espnet_lora_experts.report.page import charts
from espnet_lora_experts.report.page.parts import (
    Chart,
    Key,
    Section,
    colour,
    system_title,
)
from espnet_lora_experts.report.page.sources import Curve
from espnet_lora_experts.report.page.worst import Utterance


def curves_section(curves: Mapping[str, Curve]) -> Section:
    """Losses over the trainings, a panel for each system."""
    about = ("curves", "How the trainings went")
    if not curves:
        return Section(
            *about,
            missing="TensorBoard's files of the trainings are written by stages 5 to 8"
            " (use_tensorboard: true, ESPnet's default), in exp/*/tensorboard.",
        )
    panels = []
    for name, curve in curves.items():
        (x, y), (at, valid) = curve.train, curve.valid
        series = [
            {"name": "training", "x": x, "y": y, "colour": 0},
            {"name": "validation", "x": at, "y": valid, "colour": 1},
        ]
        series[1] |= {"marked": True, "dash": "dot", "symbol": "diamond"}
        figure = charts.lines(series, ("optimizer steps", "loss"), rangemode="tozero")
        panels.append(Chart(name, figure, system_title(name)))
    return Section(
        *about,
        "The transcripts' cross entropy, without the terms of distillation and routing,"
        " so that systems compare; it overfits where validation rises while training"
        " falls.",
        charts=panels,
        keys=[
            Key("—", colour(0), "training"),
            Key("◆", colour(1), "validation, after each epoch"),
        ],
    )


def worst_section(utterances: Mapping[str, Sequence[Utterance]]) -> Section:
    """The utterances that each system got most wrong."""
    about = ("worst", "What went most wrong")
    if not utterances:
        return Section(
            *about,
            missing="Transcripts are written by stage 9 (decode), their references by"
            " stage 2 (format).",
        )
    return Section(
        *about,
        "The reference stands above, what the system heard below, both as they are"
        " scored; where a system finds languages itself, it had to.",
        utterances={
            f"{n}, {system_title(n)}": found for n, found in utterances.items()
        },
    )
