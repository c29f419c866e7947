"""Figures of Plotly, from plain numbers. Titles, legends and themes are the page's.

A colour ``var(--name)`` is a variable of the page's style sheet. All text that did not
come from this package passes through :func:`plain`, since Plotly reads it as HTML.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from espnet_lora_experts.report.page.parts import colour, symbol
from espnet_lora_experts.whisper.languages import MODES

SEQUENTIAL = [[0, "var(--heat0)"], [1, "var(--heat1)"]]
DIVERGING = [[0, "var(--div0)"], [0.5, "var(--div1)"], [1, "var(--div2)"]]
MARKS = {"aware": ("circle", 0), "agnostic": ("diamond-open", 1)}
"""Symbol and colour of the modes."""
_MOST_WRITTEN = 12  # rows or columns of a heatmap whose cells still hold their numbers


def plain(text: object) -> str:
    """A text as Plotly shows it, whatever is in it."""
    return html.escape(str(text), quote=False)


def shortened(text: str, most: int = 18) -> str:
    """A text that leaves a narrow chart room for its data.

    Example:
        >>> shortened("kd_interpolation_prob_0")
        'kd_interpolation_…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def intervals(
    names: Sequence[str],
    values: Mapping[str, Mapping[str, tuple[float, Sequence[float]]]],
    top: float,
) -> dict[str, Any]:
    """Points with intervals, a line for each name, both modes beside each other.

    Args:
        names: From top to bottom.
        values: By mode and name: a rate and its interval, in percent.
        top: End of the axis.
    """
    figure = go.Figure()
    for mode, found in values.items():
        shift = {"aware": -0.17, "agnostic": 0.17}[mode] if len(values) > 1 else 0
        held = [name for name in names if name in found]
        rates = [found[name][0] for name in held]
        mark, number = MARKS[mode]
        figure.add_scatter(
            x=rates,
            y=[names.index(name) + shift for name in held],
            mode="markers",
            marker={"symbol": mark, "color": colour(number), "size": 8},
            error_x={
                "array": [found[n][1][1] - found[n][0] for n in held],
                "arrayminus": [found[n][0] - found[n][1][0] for n in held],
                "color": colour(number),
                "thickness": 1.5,
                "width": 0,
            },
            text=[
                f"{plain(n)}, {MODES[mode]}<br>{_with_interval(*found[n])}"
                for n in held
            ],
            hoverinfo="text",
        )
    figure.update_xaxes(range=[0, top], ticksuffix=" %", nticks=6)
    figure.update_yaxes(
        tickvals=[*range(len(names))],
        ticktext=[plain(shortened(name)) for name in names],
        range=[len(names) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    return finished(figure, 62 + 30 * len(names))


def heatmap(
    rows: Sequence[str],
    columns: Sequence[str],
    z: np.ndarray,
    hover: Sequence[Sequence[str]],
    limits: tuple[float, float],
    digits: int,
    axes: tuple[str, str],
    diverging: bool = False,
) -> dict[str, Any]:
    """A matrix of numbers, the first row on top.

    Args:
        rows: Titles.
        columns: Titles.
        z: Numbers, (rows, columns); nan is left blank.
        hover: What each cell says when it is pointed at, escaped by :func:`plain`.
        limits: Values of the palest and the strongest colour.
        digits: Digits behind the point.
        axes: Titles of x and y.
        diverging: Two colours that meet in the middle of the limits.
    """
    written = max(z.shape) <= _MOST_WRITTEN
    cells = [["" if np.isnan(x) else f"{x:.{digits}f}" for x in row] for row in z]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if np.isnan(x) else float(x) for x in row] for row in z],
            x=[plain(x) for x in columns],
            y=[plain(y) for y in rows],
            text=cells if written else None,
            texttemplate="%{text}" if written else None,
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
            colorscale=DIVERGING if diverging else SEQUENTIAL,
            zmin=limits[0],
            zmax=limits[1],
            showscale=not written,
            xgap=2,
            ygap=2,
        )
    )
    figure.update_xaxes(title=axes[0], type="category", showgrid=False)
    figure.update_yaxes(
        title=axes[1], type="category", autorange="reversed", showgrid=False
    )
    return finished(figure, 90 + max(26 * len(rows), 90))


def points(groups: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[str]]):
    """A cloud of points of each group in a colour and a symbol of its own.

    Args:
        groups: Places by group, (N, 2).
        texts: What each point says when it is pointed at.
    """
    figure = go.Figure()
    for number, (name, places_N2) in enumerate(groups.items()):
        figure.add_scatter(
            x=places_N2[:, 0].tolist(),
            y=places_N2[:, 1].tolist(),
            mode="markers",
            marker={
                "symbol": symbol(number),
                "color": colour(number),
                "size": 7,
                "opacity": 0.85,
            },
            text=[plain(text) for text in texts[name]],
            hoverinfo="text",
        )
    for axis in (figure.update_xaxes, figure.update_yaxes):
        axis(showticklabels=False, showgrid=False, zeroline=False, ticks="")
    return finished(figure, 300)


def lines(
    series: Sequence[Mapping[str, Any]],
    axes: tuple[str, str],
    height: int = 240,
    **xaxis,
) -> dict[str, Any]:
    """Curves.

    Args:
        series: Of each curve: ``name``, ``x``, ``y``, ``colour`` (a number), and if
            wanted ``dash``, ``marked`` and ``intervals``.
        axes: Titles of x and y.
        height: In pixels.
        xaxis: Options of Plotly's x axis.
    """
    figure = go.Figure()
    for curve in series:
        limits = curve.get("intervals")
        figure.add_scatter(
            x=[*curve["x"]],
            y=[*curve["y"]],
            name=plain(curve["name"]),
            mode="lines+markers" if curve.get("marked") else "lines",
            line={
                "color": colour(curve["colour"]),
                "dash": curve.get("dash", "solid"),
                "width": 2,
            },
            marker={"size": 7, "symbol": curve.get("symbol", "circle")},
            error_y=_error_bars(curve["y"], limits) if limits else None,
            hovertemplate="%{y:.3~f}<extra>%{fullData.name}</extra>",
        )
    figure.update_xaxes(title=axes[0], **xaxis)
    figure.update_yaxes(title=axes[1], rangemode="tozero")
    figure.update_layout(hovermode="x")
    return finished(figure, height)


def _error_bars(values: Sequence[float], limits: Sequence[Sequence[float]]) -> dict:
    pairs = list(zip(values, limits, strict=True))
    return {
        "array": [high - value for value, (_, high) in pairs],
        "arrayminus": [value - low for value, (low, _) in pairs],
        "thickness": 1.5,
        "width": 0,
    }


def _with_interval(value: float, limits: Sequence[float]) -> str:
    return f"{value:.1f} % [{limits[0]:.1f}, {limits[1]:.1f}]"


def finished(figure: go.Figure, height: int) -> dict[str, Any]:
    """A figure as plain values, without the theme, which the page's script sets."""
    figure.update_layout(showlegend=False, height=height)
    made = figure.to_plotly_json()
    made["layout"].pop("template", None)
    return made


def theme() -> dict[str, Any]:
    """What all figures have in common, in the colours of the page's style sheet."""
    axis = {
        "automargin": True,
        "ticks": "",
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "zerolinecolor": "var(--line)",
        "tickfont": {"color": "var(--soft)", "size": 12},
        "title": {"font": {"color": "var(--soft)", "size": 12}, "standoff": 8},
        "fixedrange": True,
    }
    layout = go.Layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "color": "var(--ink)", "size": 13},
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        hoverlabel={
            "bgcolor": "var(--card)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)"},
        },
        coloraxis={"colorbar": {"tickfont": {"color": "var(--soft)"}}},
        dragmode=False,
        xaxis=axis,
        yaxis=axis,
    )
    return {"layout": layout.to_plotly_json()}
