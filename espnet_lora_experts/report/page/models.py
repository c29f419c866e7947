"""Sections that look into the models: weights, experts, encoder states."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from espnet_lora_experts.report.page import charts
from espnet_lora_experts.report.page.parts import (
    SYMBOLS,
    Chart,
    Key,
    Section,
    colour,
    symbol,
    system_title,
)
from espnet_lora_experts.report.page.projection import project, same_neighbours
from espnet_lora_experts.whisper import languages

_KEY = re.compile(r"(?:^|\.)(encoder|decoder)\.layers\.(\d+)\.(?:.*\.)?(\w+)$")
_ORDER = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")  # others follow


@dataclass(frozen=True)
class States:
    """Encoder states of the same clips under several systems.

    Attributes:
        utts: Ids of N clips.
        langs: Their languages.
        by_system: (N, D) of each system.
    """

    utts: Sequence[str] = ()
    langs: Sequence[str] = ()
    by_system: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Inside:
    """Numbers from the models themselves, by the keys of their layers.

    Attributes:
        fusion: Of each MoLE: experts' names, and each merged matrix's weights over
            them, (E,).
        experts: Names of the E experts.
        similarity: Cosines of the experts' weight changes in each layer, (E, E).
        states: Encoder states of clips.
    """

    fusion: Mapping[str, tuple[Sequence[str], Mapping[str, np.ndarray]]] = field(
        default_factory=dict
    )
    experts: Sequence[str] = ()
    similarity: Mapping[str, np.ndarray] = field(default_factory=dict)
    states: States = field(default_factory=States)


def place(key: str) -> tuple[str, int, str]:
    """Stack, number of the layer and matrix of a layer's key.

    Raises:
        ValueError: The key is of no layer.

    Example:
        >>> place("model.encoder.layers.3.self_attn.q_proj")
        ('encoder', 3, 'q_proj')
    """
    found = _KEY.search(key)
    if found is None:
        raise ValueError(
            f"a layer's key must be ...encoder.layers.N...MATRIX or the decoder's, but"
            f" got {key!r}"
        )
    return found[1], int(found[2]), found[3]


def average(values: Mapping[Any, Sequence[np.ndarray]]) -> dict[Any, np.ndarray]:
    """The mean of each group, nan left out; groups sorted."""
    return {group: np.nanmean(values[group], axis=0) for group in sorted(values)}


def grouped(by_key: Mapping[str, np.ndarray], group) -> dict[Any, np.ndarray]:
    """Means over the matrices of each group that ``group`` makes of their places."""
    values: dict[Any, list[np.ndarray]] = {}
    for key, value in by_key.items():
        values.setdefault(group(*place(key)), []).append(np.asarray(value))
    return average(values)


def fusion_section(fusion: Mapping[str, Any]) -> Section:
    """Weights of LoRA MoLE over the experts, by layer and matrix."""
    about = ("fusion", "What LoRA MoLE takes from each expert")
    if not fusion:
        return Section(
            *about,
            missing="The merging weights of LoRA MoLE are learned by stage 7 (fusion),"
            " in exp/mole.",
        )
    panels = []
    for name, (experts, by_key) in fusion.items():
        found = sorted({place(key)[2] for key in by_key})
        matrices = sorted(found, key=lambda m: (*_ORDER, *found).index(m))
        most = max(abs(np.asarray(a) - 1 / len(experts)).max() for a in by_key.values())
        for matrix in ("", *matrices):
            chosen = {
                key: alpha_E
                for key, alpha_E in by_key.items()
                if matrix in ("", place(key)[2])
            }
            layers = grouped(chosen, lambda stack, layer, matrix: layer)
            figure = _weights(experts, layers, float(most))
            panels.append(Chart(name, figure, matrix or "mean of all matrices"))
    return Section(
        *about,
        "Rows are the merged encoder layers, columns the experts, numbers percents of"
        " a row: equal shares are pale, blue is more than that, orange less.",
        charts=panels,
    )


def _weights(experts: Sequence[str], layers: Mapping[int, np.ndarray], most: float):
    z = 100 * np.stack([*layers.values()])
    rows = [f"layer {layer}" for layer in layers]
    hover = [
        [
            f"{row}: {x:.1f} % of {charts.plain(e)}"
            for e, x in zip(experts, line, strict=True)
        ]
        for row, line in zip(rows, z, strict=True)
    ]
    fair, most = 100 / len(experts), max(100 * most, 0.1)
    limits = (fair - most, fair + most)
    return charts.heatmap(rows, experts, z, hover, limits, 1, ("expert", ""), True)


def expert_section(
    experts: Sequence[str], similarity: Mapping[str, np.ndarray], cross: Chart | None
) -> Section:
    """How alike the experts are, by pair and by layer; each on every language."""
    about = ("experts", "How alike the experts are")
    panels = [] if cross is None else [cross]
    if len(experts) > 1 and similarity:
        stacks = grouped(similarity, lambda stack, layer, matrix: stack)
        pairs = np.stack([*stacks.values()])[:, ~np.eye(len(experts), dtype=bool)]
        low = float(min(np.nanmin(pairs), 0))
        for stack in ("encoder", "decoder"):
            if stack in stacks:
                figure = _cosines(experts, stacks[stack], low)
                panels.append(Chart(f"Cosine of weight changes, {stack}", figure))
        panels.append(
            Chart("Mean cosine of two experts by layer", _by_layer(similarity))
        )
    if not panels:
        return Section(
            *about, missing="Experts are trained by stage 5 (experts), in exp/mono."
        )
    return Section(
        *about,
        "The cosine compares the changes BA that two experts make to the same weight:"
        " 1 is the same direction, 0 nothing in common; an expert's rate is lowest on"
        " its own language where it specialised.",
        charts=panels,
    )


def _cosines(experts: Sequence[str], cosine_EE: np.ndarray, low: float):
    names = [charts.plain(expert) for expert in experts]
    hover = [
        [f"{a} and {b}: {cosine:.3f}" for b, cosine in zip(names, row, strict=True)]
        for a, row in zip(names, cosine_EE, strict=True)
    ]
    axes = ("expert", "expert")
    return charts.heatmap(experts, experts, cosine_EE, hover, (low, 1), 2, axes)


def _by_layer(similarity: Mapping[str, np.ndarray]) -> dict[str, Any]:
    layers = grouped(similarity, lambda stack, layer, matrix: (stack, layer))
    others = {
        at: float(np.nanmean(cosine_EE[~np.eye(len(cosine_EE), dtype=bool)]))
        for at, cosine_EE in layers.items()
    }
    series = []
    for shade, stack in enumerate(("encoder", "decoder")):
        found = {layer: value for (s, layer), value in others.items() if s == stack}
        series.append(
            {
                "name": stack,
                "x": [*found],
                "y": [*found.values()],
                "colour": shade,
                "symbol": symbol(shade),
                "marked": True,
            }
        )
    return charts.lines(
        series, ("layer (● encoder, ■ decoder)", "cosine"), tickformat="d"
    )


def states_section(states: States) -> Section:
    """Encoder states of clips in the plane, a panel for each system."""
    about = ("states", "What the encoder makes of the languages")
    if not states.by_system:
        return Section(
            *about,
            missing="Encoder states need the trained systems (stages 5 to 8) and the"
            " test clips (stage 2).",
        )
    langs = sorted(set(states.langs))
    panels = []
    for name, states_ND in states.by_system.items():
        places_N2, share = project(states_ND), same_neighbours(states_ND, states.langs)
        rows = {x: [i for i, y in enumerate(states.langs) if x == y] for x in langs}
        figure = charts.points(
            {lang: places_N2[rows[lang]] for lang in langs},
            {lang: [f"{lang}: {states.utts[i]}" for i in rows[lang]] for lang in langs},
        )
        aside = f"{system_title(name)}; {share:.0f} % beside their own language"
        panels.append(Chart(name, figure, aside))
    return Section(
        *about,
        "Each point is a clip of the test sets, the mean of its encoder states, placed"
        " by t-SNE: near points are alike, far ones only different; the percents count"
        " clips whose nearest neighbour, before the flattening, is of their language.",
        charts=panels,
        keys=[
            Key(SYMBOLS[symbol(n)], colour(n), languages.title(lang))
            for n, lang in enumerate(langs)
        ],
    )
