"""The page: sections into one HTML file that needs no network.

The template escapes all text. Plotly's script is embedded once, the figures as JSON;
the page's Content-Security-Policy forbids it to load anything from anywhere.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from espnet_lora_experts.report.page import charts, models, records, scores
from espnet_lora_experts.report.page.lead import wins
from espnet_lora_experts.report.page.models import Inside
from espnet_lora_experts.report.page.parts import Section, system_title
from espnet_lora_experts.report.page.sources import Curve
from espnet_lora_experts.report.page.worst import Utterance
from espnet_lora_experts.report.results import Decoded
from espnet_lora_experts.whisper import languages

FOLDER = Path(__file__).parent


def render(
    scored: Mapping[str, Any],
    decoded: Mapping[tuple[str, str], Decoded],
    inside: Inside,
    curves: Mapping[str, Curve],
    sweep: Mapping[int, Mapping[str, Any]],
    utterances: Mapping[str, Sequence[Utterance]],
    clips: Mapping[str, str],
) -> str:
    """The page of a run; what is empty is left out with a sentence.

    Args:
        scored: The results dict of :mod:`~espnet_lora_experts.report.results`.
        decoded: Texts by system and mode.
        inside: Numbers from the models.
        curves: Losses by system.
        sweep: Results by the number of merged layers.
        utterances: Worst utterances by system.
        clips: ``data:`` addresses of clips by utterance.
    """
    sections = [
        scores.table_section(scored),
        scores.language_section(scored),
        scores.lid_section(scored, decoded),
        records.worst_section(utterances),
        models.states_section(inside.states),
        models.expert_section(
            inside.experts, inside.similarity, scores.cross_chart(scored)
        ),
        models.fusion_section(inside.fusion),
        scores.sweep_section(sweep),
        records.curves_section(curves),
    ]
    template = _environment().get_template("page.html")
    return template.render(
        wins=wins(scored, decoded),
        sections=sections,
        meta=scored["meta"],
        top=top_line(scored["meta"]),
        figures=figures(sections),
        theme=charts.theme(),
        clips=clips,
        style=_verbatim("page.css"),
        script=_verbatim("page.js"),
        plotly=Markup(get_plotlyjs()),
    )


def top_line(meta: Mapping[str, Any]) -> list[str]:
    """What stands beside the title, as far as it is known."""
    counts = meta.get("utterances") or {}
    tested = f"{sum(counts.values()):,} test utterances" if counts else ""
    return [str(x) for x in (meta.get("backbone"), tested, meta.get("date")) if x]


def figures(sections: Sequence[Section]) -> dict[str, Any]:
    """Figures by the id of their element."""
    return {
        f"{section.id}-{number}": chart.figure
        for section in sections
        for number, chart in enumerate(section.charts)
    }


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "system": system_title,
        "language": languages.title,
        "plain": _plain_value,
        "points": lambda value: f"{value:.1f}".replace("-", "\u2212"),
    }
    return environment


def _plain_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    return str(value)


def _verbatim(name: str) -> Markup:
    return Markup((FOLDER / name).read_text(encoding="utf-8"))
