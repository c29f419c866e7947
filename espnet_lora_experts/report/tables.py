"""RESULTS.md from the results dict (see results.py)."""

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_lora_experts.report.results import lid_class
from espnet_lora_experts.whisper import languages

TITLES = {"aware": "Language-aware", "agnostic": "Language-agnostic"}
_COUNTS = {"WER": "word", "CER": "char"}
_ESPNET = ("dataset", "Snt", "Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err")
_CHANGES = ("system", "mode", "language", "before [95 %]", "after [95 %]")
_CHANGES += ("change [95 %]", "p", "LID before", "LID after", "steps", "steps added")


def render(results: Mapping[str, Any]) -> str:
    """The whole of RESULTS.md."""
    parts = ["# RESULTS", environment(results["meta"]), *summaries(results), NOTES]
    for name in _COUNTS:
        parts += [f"## {name}", espnet_table(results, name)]
    return "\n\n".join(parts) + "\n"


def summaries(results: Mapping[str, Any]) -> list[str]:
    """Titles and tables of the modes that some system has."""
    tables = {title: summary(results, mode) for mode, title in TITLES.items()}
    tables["Before and after languages were added"] = changes_table(results)
    tables["Language identification"] = lid_table(results)
    tables["Other normalisations of the same transcripts"] = other_table(results)
    tables["Each expert (row) on every language"] = cross_table(results)
    return [f"## {title}\n\n{table}" for title, table in tables.items() if table]


NOTES = (
    "WER and CER in %, brackets: 95 % bootstrap interval over utterances. Averages and"
    " LID accuracy are over languages. p: paired bootstrap on the average, two-sided."
    " Mi = 2^20 parameters. RTF: seconds of computing per second of audio. LID accuracy"
    " says that these recordings can be told apart; where a language has few speakers,"
    " or a source of its own, the system may hear the voice or the source instead of"
    " the language. LID counts languages that may share a Whisper token as one; the"
    " titles of their columns say so (`yue = zh`). Scored texts: one spelling,"
    " combining marks kept; raw: as written; whisper: its authors' normaliser, which"
    " cuts words of Indic scripts, Thai and others at their combining marks, so that"
    " its rates there mean little."
)


def environment(meta: Mapping[str, Any]) -> str:
    """Where the results come from, as ESPnet's RESULTS.md opens."""
    lines = [f"- {key}: `{_text(value)}`" for key, value in meta.items()]
    return "\n".join(["## Environments", *lines])


def summary(results: Mapping[str, Any], mode: str) -> str:
    """One row per system that has the mode; "" when none has."""
    baseline = results["meta"].get("baseline", "multi")
    rows = {k: v for k, v in results["systems"].items() if mode in v}
    if not rows:
        return ""
    langs = list(next(iter(rows.values()))[mode]["wer"])
    lid = ["LID %"] if mode == "agnostic" else []
    sizes = ["steps", "trained Mi", "deployed Mi", "RTF"]
    head = ["system", *map(heading, langs), "avg [95 %]", "avg CER [95 %]", *lid]
    return markdown(
        [*head, f"p vs {baseline}", *sizes],
        [summary_row(name, row, mode, langs, baseline) for name, row in rows.items()],
    )


def lid_table(results: Mapping[str, Any]) -> str:
    """LID accuracy by language of each system that found any; "" when none did."""
    modes = {k: v.get("agnostic", {}) for k, v in results["systems"].items()}
    scores = {
        name: {**x["lid_acc_lang"], "avg": x["lid_acc"]}
        for name, x in modes.items()
        if "lid_acc_lang" in x
    }
    if not scores:
        return ""
    *langs, avg = next(iter(scores.values()))
    titles = [*(lid_heading(lang, langs) for lang in langs), avg]
    rows = [
        [name, *(number(x[key], 1) for key in (*langs, avg))]
        for name, x in scores.items()
    ]
    return markdown(["system", *titles], rows)


def other_table(results: Mapping[str, Any]) -> str:
    """Average rates of each system under each normaliser; "" when there is one only."""
    systems = results["systems"]
    modes = [mode for mode in TITLES if any(mode in row for row in systems.values())]
    names = other_names(results)
    if not names:
        return ""
    head = [f"{mode}, {name}" for mode in modes for name in ("scored", *names)]
    rows = [
        [system, *(cell for mode in modes for cell in other_cells(row, mode, names))]
        for system, row in systems.items()
    ]
    return markdown(["system", *head], rows)


def other_names(results: Mapping[str, Any]) -> list[str]:
    """Names of the normalisers besides the one that is scored with."""
    modes = [row[m] for row in results["systems"].values() for m in TITLES if m in row]
    return list(dict.fromkeys(n for row in modes for n in row.get("other_texts", {})))


def other_cells(row: Mapping[str, Any], mode: str, names: Sequence[str]) -> list[str]:
    """Averages of a system in a mode as scored, then under each normaliser."""
    scores = row.get(mode)
    if scores is None:
        return ["-"] * (1 + len(names))
    ways = [scores, *(scores.get("other_texts", {}).get(name) for name in names)]
    return [with_interval(x["avg_wer"], x["ci95"]) if x else "-" for x in ways]


def changes_table(results: Mapping[str, Any]) -> str:
    """Each system before and after it learned further languages; "" without any."""
    rows = []
    for name, system in results.get("changes", {}).items():
        steps = [f"{system['steps'][side]:,}" for side in ("before", "after")]
        for mode in (mode for mode in TITLES if mode in system):
            for lang, row in system[mode].items():
                rows.append([name, mode, lang, *change_cells(row), *steps])
    return markdown(_CHANGES, rows) if rows else ""


def change_cells(row: Mapping[str, Any]) -> list[str]:
    """Rates, p and LID accuracies of one language; a new one has no before."""
    rates = [
        with_interval(row[name], row[f"ci95_{name}"]) if name in row else "-"
        for name in ("before", "after", "change")
    ]
    lids = [number(row.get(f"lid_{side}"), 1) for side in ("before", "after")]
    return [*rates, number(row.get("p"), 3), *lids]


def lid_heading(lang: str, langs: Sequence[str]) -> str:
    """Column title of a language, with those that LID counts as the same."""
    same = [x for x in langs if x != lang and lid_class(x) == lid_class(lang)]
    return " = ".join([lang, *same])


def cross_table(results: Mapping[str, Any]) -> str:
    """Error rate of each expert on every language; "" when not decoded."""
    cross = results.get("cross")
    if not cross:
        return ""
    langs = list(next(iter(cross.values())))
    rows = [[e, *(number(x[lang], 1) for lang in langs)] for e, x in cross.items()]
    return markdown(["expert", *map(heading, langs)], rows)


def summary_row(
    name: str, row: Mapping[str, Any], mode: str, langs: Sequence[str], baseline: str
) -> list[str]:
    """Cells of one system."""
    scores = row[mode]
    lid = [number(scores.get("lid_acc"), 1)] if mode == "agnostic" else []
    return [
        name,
        *(number(scores["wer"][lang], 1) for lang in langs),
        with_interval(scores["avg_wer"], scores["ci95"]),
        with_interval(scores["avg_cer"], scores["ci95_cer"]),
        *lid,
        number(scores.get(f"p_vs_{baseline}"), 3),
        f"{row['steps']:,}",
        number(row["trained_params"] / 2**20, 2),
        number(row["deployed_params"] / 2**20, 2),
        number(scores["rtf"], 3),
    ]


def espnet_table(results: Mapping[str, Any], name: str) -> str:
    """ESPnet's table of one metric, a row per system, mode and language.

    Args:
        results: The results dict.
        name: ``"WER"`` (languages scored by words only) or ``"CER"``.
    """
    rows = []
    for system, modes in results["systems"].items():
        for mode in (mode for mode in TITLES if mode in modes):
            for lang, counts in modes[mode]["counts"][_COUNTS[name]].items():
                if name == "CER" or languages.get(lang).metric == "wer":
                    rows.append([f"{system}/decode_{mode}/{lang}", *sclite(counts)])
    return markdown(_ESPNET, rows)


def sclite(counts: Mapping[str, int]) -> list[str]:
    """Snt, Wrd and the percentages of sclite's summary line."""
    sub, deleted, inserted, ref = (counts[k] for k in ("sub", "del", "ins", "ref"))
    correct = ref - sub - deleted
    errors = sub + deleted + inserted
    parts = [correct, sub, deleted, inserted, errors]
    percents = [number(100 * part / max(ref, 1), 1) for part in parts]
    wrong = number(100 * counts["wrong"] / counts["snt"], 1)
    return [str(counts["snt"]), str(ref), *percents, wrong]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"|{'|'.join(line)}|" for line in lines)


def heading(lang: str) -> str:
    """Column title of a language, with its metric where that is CER."""
    return lang if languages.get(lang).metric == "wer" else f"{lang} (CER)"


def number(value: float | None, digits: int) -> str:
    """A number, or ``-`` for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(value: float, limits: Sequence[float]) -> str:
    """``12.3 [11.0, 13.5]``."""
    return f"{value:.1f} [{limits[0]:.1f}, {limits[1]:.1f}]"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
