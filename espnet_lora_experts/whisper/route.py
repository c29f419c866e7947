"""Routes: whose expert each row of a batch gets, and the gates that give it.

Names of dimensions: B batch, E languages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from espnet_lora_experts.experts.gate import Gate, Packed, one_hot, soft

Route = Sequence[str | Mapping[str, float]]
"""The language of each row, or the weights of several languages (soft routing)."""


def languages_of(route: Route) -> list[str]:
    """The language of each row: where it has several, that of the largest weight.

    Example:
        >>> languages_of(["es", {"ru": 0.6, "ro": 0.4}])
        ['es', 'ru']
    """
    return [
        row if isinstance(row, str) else max(row, key=row.__getitem__) for row in route
    ]


def gate_of(route: Route | None) -> Gate:
    """Each row its language's expert, or the weighted sum of several.

    Raises:
        ValueError: There is no route.
    """
    route = _known(route)
    hard = _one_each(route)
    if hard is not None:
        return one_hot(hard)
    names = _names(route)
    return soft(names, _weights(route, names))


def step_gate(route: Route | None) -> Callable[[Route | None], Gate]:
    """:func:`gate_of` for rows that are one position each.

    Args:
        route: Of all rows that may come.
    """
    packed = Packed(_names(_known(route)))

    def gate(rows: Route | None) -> Gate:
        rows = _known(rows)
        hard = _one_each(rows)
        if hard is not None:
            return packed.gate(hard)
        return packed.soft(_weights(rows, packed.names))

    return gate


def _known(route: Route | None) -> Route:
    if route is None:
        raise ValueError(
            "language experts must be told the language, but got None; give lang, or "
            "use a system that finds it (MoLE, a distilled student, two_pass)"
        )
    return route


def _one_each(route: Route) -> list[str] | None:
    """The language of each row; None where some row has weights."""
    hard = [row for row in route if isinstance(row, str)]
    return hard if len(hard) == len(route) else None


def _shares(route: Route) -> list[Mapping[str, float]]:
    return [{row: 1.0} if isinstance(row, str) else row for row in route]


def _names(route: Route) -> list[str]:
    """All languages of a route."""
    return sorted({name for row in _shares(route) for name in row})


def _weights(route: Route, names: Sequence[str]) -> Tensor:
    """What each row has of each language, (B, E)."""
    rows = _shares(route)
    return torch.tensor([[row.get(name, 0.0) for name in names] for row in rows])
