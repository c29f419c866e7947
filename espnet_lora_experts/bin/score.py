"""Score decoded systems: results.json, RESULTS.md and trn files.

With --check, results.json is scored again from its files, with the options it was made
with, and compared; nothing is written but trn files that are missing.
"""

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from espnet_lora_experts import atomic
from espnet_lora_experts.bin import cli
from espnet_lora_experts.report import (
    changes,
    collect,
    decodes,
    environment,
    results,
    tables,
)
from espnet_lora_experts.whisper import description, languages, published
from espnet_lora_experts.whisper.description import DESCRIPTION, read_description

MODULE = "espnet_lora_experts.bin.score"
SYSTEMS = "vanilla mono two_pass multi mole kd kd_logits_only full"
TRAINED_ANEW = ("mole", "single")
"""Types of systems that adding a language changes; experts stay as they are."""


def get_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--expdir", type=Path, default="exp", help="holds <system>/decode_<mode>/<set>")
    add("--before", type=Path, help="an older expdir: how its systems have changed")
    add("--test_sets", default="test", help="separated by spaces; languages are pooled")
    add("--data_root", type=Path, default="dump/raw", help="holds <set>/text, utt2lang")
    add("--systems", default=SYSTEMS, help="separated by spaces")
    add(
        "--baseline",
        default="multi",
        help="the systems that p-values compare with; tables show the first",
    )
    add("--output", type=Path, default="exp", help="results.json is written there")
    add("--results_md", type=Path, help="default: RESULTS.md in --output")
    add("--command", default="", help="the recipe command that made the results")
    add("--about", default="", help='for the header, e.g. "backbone=x text_policy=raw"')
    add(
        "--score_case",
        default="lower",
        choices=languages.CASES,
        help="of the scored texts; keep: a capital counts",
    )
    add(
        "--score_punctuation",
        default="remove",
        choices=languages.PUNCTUATIONS,
        help="of the scored texts; keep: it counts, with the word before it",
    )
    add(
        "--whisper_spellings",
        default="",
        metavar="BACKBONE",
        help="whose normalizer.json knows British spellings, which Whisper's normaliser"
        " of English writes in the American way; none: they stay",
    )
    add("--samples", type=int, default=1000, help="bootstrap samples")
    add("--seed", type=int, default=0, help="of the bootstrap")
    add(
        "--skip_missing",
        type=cli.boolean,
        default=False,
        metavar="{true,false}",
        help="leave out systems and modes that were not decoded",
    )
    add(
        "--check",
        type=Path,
        metavar="RESULTS_JSON",
        help="score it again, in the folder where it was made (or name other ones)",
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> dict[str, Any]:
    """Read, score, write, print the summary."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    words = sys.argv[1:] if cmd is None else cmd
    if args.check:
        return check(args.check, words)
    built = build(args, words)
    write(built, args.output / "results.json", args.results_md)
    print("\n\n".join(tables.summaries(built)))
    return built


def check(path: Path, words: Sequence[str]) -> dict[str, Any]:
    """Scores results again from their files.

    Args:
        path: ``results.json``.
        words: Options that differ from those it was made with.

    Raises:
        ValueError: Its numbers are not those of its files; names some.
    """
    stored = description.read_json(path)
    _, _, _, *made_by = shlex.split(stored["meta"]["command"])  # python -m MODULE
    built = build(get_parser().parse_args([*made_by, *words]), made_by)
    numbers = results.differences(stored, json.loads(json.dumps(built)))
    if numbers:
        raise ValueError(
            f"{path} must have the numbers of its files, but {len(numbers)} differ: "
            f"{'; '.join(numbers[:5])}; were texts decoded or formatted since? Then "
            "score them again (stage 10)"
        )
    print(f"{path}: all numbers are those of its files")
    return built


def build(args: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Reads and scores what the options name; ``words`` are told as the command."""
    names = args.systems.split()
    text = {"case": args.score_case, "punctuation": args.score_punctuation}
    scored_as = partial(languages.normalize, **text)
    test_sets = decodes.read_test_sets(
        args.data_root, args.test_sets.split(), scored_as
    )
    systems = collect.read_systems(args.expdir, names, test_sets, args.skip_missing)
    baseline, *others = args.baseline.split() or [""]
    for name in (baseline, *others):
        if name not in systems:
            logging.warning(
                f"no p-values: baseline {name} is not among the scored systems:"
                f" {' '.join(systems)}"
            )
    words = scoring_words(words, args.command)
    meta = environment.describe(MODULE, words, args.command)
    pairs = environment.relative(args.about).split()
    about: dict[str, Any] = dict(pair.split("=", 1) for pair in pairs)
    about["scored_text"] = text
    about["utterances"] = {t.name: len(t.utts) for t in test_sets}
    about["training_seeds"], about["training_configs"] = environment.trainings(
        args.expdir, list(systems)
    )
    cross = collect.read_cross(args.expdir / "mono", test_sets)
    built = results.build(
        systems,
        {**meta, **about},
        baseline,
        args.samples,
        args.seed,
        cross,
        others,
        read_others(args, list(systems)),
    )
    if args.before:
        older = read_before(args.before, systems, test_sets)
        built["changes"] = changes.compare(older, systems, args.samples, args.seed)
    return built


def read_before(
    expdir: Path, names: Iterable[str], test_sets: Sequence[decodes.TestSet]
) -> dict[str, results.System]:
    """The systems of an older folder, on the utterances of their languages."""
    found = {}
    for name in names:
        if (expdir / name / DESCRIPTION).is_file():
            what = read_description(expdir / name)
            if what["type"] in TRAINED_ANEW:
                sets = [decodes.of_languages(x, what["languages"]) for x in test_sets]
                found |= collect.read_systems(expdir, [name], sets, trn=False)
    return found


def read_others(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The same systems with their texts as written, and as Whisper's authors do."""
    sets = args.test_sets.split()
    raw = decodes.read_test_sets(args.data_root, sets, decodes.raw)
    english = any("en" in test_set.langs for test_set in raw)
    named = args.whisper_spellings if english else ""
    known = published.spellings(named) if named else {}
    ways = {"raw": decodes.raw, "whisper": published.normalizer(known)}
    return {
        way: collect.read_systems(
            args.expdir,
            names,
            decodes.read_test_sets(args.data_root, sets, normalize),
            skip_missing=True,
            trn=False,
        )
        for way, normalize in ways.items()
    }


def scoring_words(words: Sequence[str], command: str) -> list[str]:
    """The command line without the recipe command, which the page names for itself."""
    named = ("--command", command, f"--command={command}") if command else ()
    return [word for word in words if word not in named]


def write(built: dict[str, Any], path: Path, results_md: Path | None) -> None:
    """Write the results and, beside them unless it is named, the page."""
    text = json.dumps(built, indent=1, ensure_ascii=False)
    atomic.write_text(path, text + "\n")
    page = results_md or path.with_name("RESULTS.md")
    atomic.write_text(page, tables.render(built))


if __name__ == "__main__":
    cli.run(main)
