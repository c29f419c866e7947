"""Sections that show the scores: tables, rates by language, found languages, sweep."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from espnet_lora_experts.report.page import charts
from espnet_lora_experts.report.page.parts import (
    Cell,
    Chart,
    Key,
    Section,
    Table,
    colour,
    system_title,
)
from espnet_lora_experts.report.results import Decoded
from espnet_lora_experts.report.tables import (
    heading,
    number,
    other_cells,
    other_names,
)
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.languages import MODES

MODE_KEYS = [
    Key({"circle": "●", "diamond-open": "◇"}[mark], colour(shade), MODES[mode])
    for mode, (mark, shade) in charts.MARKS.items()
]


def table_section(scored: Mapping[str, Any]) -> Section:
    """All systems: rates with intervals, p-values, sizes."""
    modes = [m for m in MODES if any(m in row for row in scored["systems"].values())]
    return Section(
        "results",
        "All systems, averaged over languages",
        "Lower is better; brackets hold the 95 % bootstrap interval, bold marks the"
        " best of a column, p compares with"
        f" {scored['meta'].get('baseline', 'multi')} (paired bootstrap, two-sided).",
        tables=[
            _summary(scored, modes),
            *(_by_language(scored, mode) for mode in modes),
            *_other_texts(scored, modes),
        ],
    )


def _summary(scored: Mapping[str, Any], modes: Sequence[str]) -> Table:
    head = []
    for mode in modes:
        head += [f"WER %, {MODES[mode]}", "p"]
    found = "agnostic" in modes
    head += [*(["LID %"] if found else []), "steps", "trained Mi", "deployed Mi", "RTF"]
    systems = scored["systems"]
    baseline = scored["meta"].get("baseline", "multi")
    best = {mode: _lowest(systems, mode, "avg_wer") for mode in modes}
    rows = []
    for name, row in systems.items():
        cells = []
        for mode in modes:
            scores = row.get(mode, {})
            cells += [
                _rate(scores.get("avg_wer"), scores.get("ci95"), best[mode] == name),
                Cell(number(scores.get(f"p_vs_{baseline}"), 3)),
            ]
        if found:
            cells.append(Cell(number(row.get("agnostic", {}).get("lid_acc"), 1)))
        rtf = next((row[m]["rtf"] for m in reversed(modes) if m in row), None)
        cells += [
            Cell(f"{row['steps']:,}"),
            Cell(number(row["trained_params"] / 2**20, 2)),
            Cell(number(row["deployed_params"] / 2**20, 2)),
            Cell(number(rtf, 3)),
        ]
        rows.append((name, system_title(name), cells))
    return Table("Averages", head, rows)


def _by_language(scored: Mapping[str, Any], mode: str) -> Table:
    systems = {n: row[mode] for n, row in scored["systems"].items() if mode in row}
    langs = list(next(iter(systems.values()))["wer"])
    best = {
        lang: min(systems, key=lambda n, lang=lang: systems[n]["wer"][lang])
        for lang in langs
    }
    fewest = min(systems, key=lambda n: systems[n]["avg_cer"])
    rows = []
    for name, row in systems.items():
        cells = [
            _rate(row["wer"][lang], row["ci95_lang"][lang], best[lang] == name)
            for lang in langs
        ]
        cells.append(_rate(row["avg_cer"], row["ci95_cer"], fewest == name))
        rows.append((name, system_title(name), cells))
    title = f"WER % by language and CER %, {MODES[mode]}"
    return Table(title, [*map(heading, langs), "CER, average"], rows)


def _other_texts(scored: Mapping[str, Any], modes: Sequence[str]) -> list[Table]:
    """The averages under every normaliser, where there are several."""
    names = other_names(scored)
    ways = ("as scored", *names)
    head = [f"WER %, {MODES[mode]}, {way}" for mode in modes for way in ways]
    rows = [
        (name, system_title(name), [Cell(x) for x in _all_ways(row, modes, names)])
        for name, row in scored["systems"].items()
    ]
    title = (
        "Averages of the same transcripts as written (raw) and as Whisper's authors"
        " normalise them, which cuts Indic, Thai and other words at their marks"
    )
    return [Table(title, head, rows)] if names else []


def _all_ways(row, modes: Sequence[str], names: Sequence[str]) -> list[str]:
    return [cell for mode in modes for cell in other_cells(row, mode, names)]


def _lowest(systems: Mapping[str, Any], mode: str, key: str) -> str:
    held = {name: row[mode][key] for name, row in systems.items() if mode in row}
    return min(held, key=held.__getitem__)


def _rate(value: float | None, limits: Sequence[float] | None, best: bool) -> Cell:
    if value is None or limits is None:
        return Cell("-")
    return Cell(f"{value:.1f}", f"[{limits[0]:.1f}, {limits[1]:.1f}]", best)


def language_section(scored: Mapping[str, Any]) -> Section:
    """Rates of each language, a line for each system."""
    systems = scored["systems"]
    modes = [mode for mode in MODES if any(mode in row for row in systems.values())]
    rows = [row[mode] for row in systems.values() for mode in modes if mode in row]
    langs = list(rows[0]["wer"])
    limits = [ci for row in rows for ci in (row["ci95"], *row["ci95_lang"].values())]
    top = 1.03 * max(high for _, high in limits)

    def panel(title, pick):
        values = {
            mode: {n: pick(r[mode]) for n, r in systems.items() if mode in r}
            for mode in modes
        }
        return Chart(title, charts.intervals([*systems], values, top))

    def of(lang):
        return lambda row: (row["wer"][lang], row["ci95_lang"][lang])

    average = panel("Average of the languages", lambda r: (r["avg_wer"], r["ci95"]))
    return Section(
        "languages",
        "Word error rate of each language",
        "Each line is a system; a point further left is better, and where two bars"
        " overlap widely the difference may be chance.",
        charts=[average, *(panel(_title(lang), of(lang)) for lang in langs)],
        keys=[key for key in MODE_KEYS if key.text in {MODES[mode] for mode in modes}],
    )


def _title(lang: str) -> str:
    cer = "" if heading(lang) == lang else ", CER"
    return languages.title(lang) + cer


def lid_section(
    scored: Mapping[str, Any], decoded: Mapping[tuple[str, str], Decoded]
) -> Section:
    """Which languages each system took for which."""
    about = ("lid", "Which language each system heard")
    found = {n: d for (n, _), d in decoded.items() if d.found is not None}
    if not found:
        return Section(
            *about,
            missing="What systems found when no language was given is written by"
            " stage 9 (decode), in decode_agnostic.",
        )
    panels = []
    for name, output in found.items():
        accuracy = scored["systems"][name]["agnostic"].get("lid_acc")
        aside = f"{number(accuracy, 1)} % right, averaged over languages"
        panels.append(Chart(name, _confusion(output), aside))
    return Section(
        *about,
        "Rows are the true languages, columns what was found, numbers percents of a"
        " row; all is on the diagonal where no language is taken for another.",
        charts=panels,
    )


def _confusion(output: Decoded) -> dict[str, Any]:
    found = output.found or []
    rows = sorted(set(output.langs))
    columns = [*rows, *sorted(set(found) - set(rows))]
    counts = np.zeros((len(rows), len(columns)))
    for true, heard in zip(output.langs, found, strict=True):
        counts[rows.index(true), columns.index(heard)] += 1
    totals = counts.sum(axis=1, keepdims=True)
    percents = 100 * counts / totals
    hover = [
        [
            f"{charts.plain(true)} heard as {charts.plain(heard)}:<br>"
            f"{counts[i, j]:.0f} of {totals[i, 0]:.0f} ({percents[i, j]:.1f} %)"
            for j, heard in enumerate(columns)
        ]
        for i, true in enumerate(rows)
    ]
    axes = ("found", "spoken")
    return charts.heatmap(rows, columns, percents, hover, (0, 100), 0, axes)


def cross_chart(scored: Mapping[str, Any]) -> Chart | None:
    """Rates of each expert on every language."""
    cross = scored.get("cross")
    if not cross:
        return None
    langs = list(next(iter(cross.values())))
    z = np.array([[row[lang] for lang in langs] for row in cross.values()])
    hover = [
        [f"the {charts.plain(e)} expert on {lang}: {row[lang]:.1f} %" for lang in langs]
        for e, row in cross.items()
    ]
    limits = (float(z.min()), float(min(z.max(), 100)))
    figure = charts.heatmap(
        [*cross], langs, z, hover, limits, 1, ("language spoken", "expert")
    )
    return Chart("WER % of each expert on every language", figure)


def sweep_section(sweep: Mapping[int, Mapping[str, Any]]) -> Section:
    """Rates and found languages by the number of merged layers."""
    about = ("sweep", "How many layers to merge")
    if not sweep:
        return Section(
            *about,
            missing="Variants of LoRA MoLE with more and fewer merged layers are made,"
            " after a run, by ./sweep.sh conf/sweeps/merged_layers.txt.",
        )
    series = []
    for mode in MODES:
        rows = {layers: row[mode] for layers, row in sweep.items() if mode in row}
        if rows:
            series.append(
                {
                    "name": MODES[mode],
                    "x": [*rows],
                    "y": [row["avg_wer"] for row in rows.values()],
                    "intervals": [row["ci95"] for row in rows.values()],
                    "colour": charts.MARKS[mode][1],
                    "symbol": charts.MARKS[mode][0],
                    "marked": True,
                }
            )
    accuracy = {n: row.get("agnostic", {}).get("lid_acc") for n, row in sweep.items()}
    known = {layers: value for layers, value in accuracy.items() if value is not None}
    lid = {"name": "LID", "x": [*known], "y": [*known.values()], "colour": 2}
    axis, ticks = "merged encoder layers", {"dtick": 1 if max(sweep) < 13 else 4}
    panels = [
        Chart("Average WER %", charts.lines(series, (axis, "WER %"), 280, **ticks))
    ]
    if known:
        one = [{**lid, "marked": True, "symbol": "square"}]
        figure = charts.lines(one, (axis, "LID accuracy %"), 280, **ticks)
        panels.append(Chart("Languages found, %", figure))
    return Section(
        *about,
        "Each point is a LoRA MoLE of its own, scored on the validation set: merging"
        " more layers leaves the router more to hear and the experts fewer to run.",
        charts=panels,
        keys=MODE_KEYS,
    )
