"""Stage 11: one HTML page of what a run found out, to read, to keep and to send.

    python -m espnet_lora_experts.bin.report --expdir exp --data_root dump/raw \\
        --test_sets test --output exp/report.html

The page holds its charts, clips and scripts itself and loads nothing. It needs the
results of stage 10; everything else is shown as far as it is there: transcripts (stage
9), trained systems and TensorBoard's files (stages 5 to 8), a sweep (./sweep.sh). The
encoder states of the systems are computed here, and kept in
``exp/<system>/encoder_states.npz``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from espnet_lora_experts import atomic
from espnet_lora_experts.bin import cli
from espnet_lora_experts.bin.tasks import files_of
from espnet_lora_experts.experts.similarity import similarities
from espnet_lora_experts.report import decodes
from espnet_lora_experts.report.decodes import TestSet
from espnet_lora_experts.report.kaldi import read_table
from espnet_lora_experts.report.page import sources
from espnet_lora_experts.report.page.models import Inside, States
from espnet_lora_experts.report.page.render import render
from espnet_lora_experts.report.page.worst import Utterance, as_ogg, worst
from espnet_lora_experts.report.results import Decoded
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.audio import SAMPLE_RATE
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.features import MAX_SAMPLES
from espnet_lora_experts.whisper.folder import FULL, VANILLA, is_system, load_system
from espnet_lora_experts.whisper.states import kept_states, mean_states
from espnet_lora_experts.whisper.systems import MoLE, System
from espnet_lora_experts.whisper.wav_scp import read_entry

LOSS = "loss_asr"
"""ESPnet's name of the loss that all trainings have."""
Loaded = tuple[Backbone, System, dict[str, Any]]
"""As :func:`~.whisper.folder.load_system` returns it."""


def get_parser() -> argparse.ArgumentParser:
    """Options of this stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    default = "default: %(default)s"
    add("--expdir", default="exp", type=Path, help=f"holds the systems; {default}")
    add(
        "--data_root",
        default="dump/raw",
        type=Path,
        help=f"holds <set>/{{wav.scp,text,utt2lang}}; {default}",
    )
    add("--test_sets", default="test", help=f"those of the results; {default}")
    add("--results", type=Path, help="of stage 10; default: results.json in --expdir")
    add("--output", type=Path, help="default: report.html in --expdir")
    add("--worst", type=int, default=5, help=f"utterances of each system; {default}")
    add(
        "--clips_per_language",
        type=int,
        default=40,
        help=f"for the picture of encoder states, 0 leaves it out; {default}",
    )
    add("--ngpu", type=int, default=0, help=f"for the encoder states; {default}")
    return parser


def main(cmd: Sequence[str] | None = None) -> Path:
    """Reads, computes, writes; returns where the page is."""
    cli.show_log()
    logging.getLogger("tensorboard").setLevel(logging.WARNING)
    args = cli.parse(get_parser(), cmd)
    output = args.output or args.expdir / "report.html"
    scored = sources.read_results(args.results or args.expdir / "results.json")
    names = list(scored["systems"])
    scored_as = partial(languages.normalize, **scored["meta"].get("scored_text", {}))
    test_sets = read_references(args.data_root, args.test_sets.split(), scored_as)
    paths = read_paths(args.data_root, test_sets)
    decoded = sources.read_decoded(args.expdir, scored, test_sets)
    utterances = find_worst(decoded, test_sets, args.worst)
    page = render(
        scored,
        decoded,
        look_inside(args, names, test_sets, paths),
        sources.read_curves(args.expdir, trained(args.expdir, names), LOSS),
        sources.read_sweep(args.expdir),
        utterances,
        read_clips(utterances, paths),
    )
    atomic.write_text(output, page)
    logging.info(f"{output}: {output.stat().st_size / 2**20:.1f} MB")
    return output


def read_references(
    data_root: Path,
    names: Sequence[str],
    normalize: decodes.Normalizer = languages.normalize,
) -> list[TestSet]:
    """The test sets, or none if stage 2's output is gone."""
    lacking = [name for name in names if not (data_root / name / "text").is_file()]
    if lacking:
        logging.warning(
            f"{data_root} has no text of {' '.join(lacking)}: transcripts, clips and"
            " encoder states are left out; stage 2 (format) writes it"
        )
        return []
    return decodes.read_test_sets(data_root, names, normalize)


def read_paths(data_root: Path, test_sets: Iterable[TestSet]) -> dict[str, str]:
    """Where the clip of each utterance is, as far as wav.scp is there."""
    tables = [data_root / test_set.name / "wav.scp" for test_set in test_sets]
    found = [read_table(path) for path in tables if path.is_file()]
    return {utt: path for table in found for utt, path in table.items()}


def find_worst(
    decoded: Mapping[tuple[str, str], Decoded], test_sets: Iterable[TestSet], count: int
) -> dict[str, list[Utterance]]:
    """The worst utterances of each system, finding the language where it can."""
    utts = [utt for test_set in test_sets for utt in test_set.utts]
    last = {name: output for (name, _), output in decoded.items()}  # agnostic is later
    return {name: worst(utts, output, count) for name, output in last.items()}


def trained(expdir: Path, names: Sequence[str]) -> list[str]:
    """Systems that were trained, and experts that were trained one by one."""
    folders = [expdir / f"mono_{code}" for code in sorted(languages.TABLE)]
    alone = [folder.name for folder in folders if folder.is_dir()]
    return [*dict.fromkeys([*names, *alone])]


def read_clip(path: str) -> np.ndarray | None:
    """Samples of a clip; None if it is gone, broken, or over 30 s."""
    try:
        samples_S = read_entry(path)
    except ValueError as error:
        logging.warning(f"left out: {error}")
        return None
    return samples_S if len(samples_S) <= MAX_SAMPLES else None


def read_clips(
    utterances: Mapping[str, Sequence[Utterance]], paths: Mapping[str, str]
) -> dict[str, str]:
    """``data:`` addresses of the clips that the page plays."""
    wanted = {one.utt: None for found in utterances.values() for one in found}
    clips = {utt: read_clip(paths[utt]) for utt in wanted if utt in paths}
    return {utt: as_ogg(x, SAMPLE_RATE) for utt, x in clips.items() if x is not None}


def look_inside(
    args, names: Sequence[str], test_sets: Sequence[TestSet], paths: Mapping[str, str]
) -> Inside:
    """Fusion weights, expert similarity and encoder states of the systems there are."""
    clips, langs = pick_clips(test_sets, paths, args.clips_per_language)
    fusion, experts, similarity, states = {}, [], {}, {}
    for name, loaded in load_all(args.expdir, names, bool(args.ngpu)):
        backbone, system, what = loaded
        if isinstance(system, MoLE):
            fusion[name] = weights_of(system)
        if what["type"] == "experts":
            experts = system.languages
            found = similarities(backbone.bank, experts)
            similarity = {key: x.cpu().numpy() for key, x in found.items()}
        if clips:
            states[name] = states_of(args.expdir / name, loaded, clips, langs)
    return Inside(fusion, experts, similarity, States([*clips], langs, states))


def pick_clips(
    test_sets: Iterable[TestSet], paths: Mapping[str, str], count: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """At most so many clips of each language, by utterance, and their languages."""
    known = {
        utt: lang
        for test_set in test_sets
        for utt, lang in zip(test_set.utts, test_set.langs, strict=True)
        if utt in paths
    }
    utts = spread(known, count)
    bar = tqdm(utts, "clips", ncols=79, disable=not utts)
    read = {utt: read_clip(paths[utt]) for utt in bar}
    clips = {utt: clip for utt, clip in read.items() if clip is not None}
    return clips, [known[utt] for utt in clips]


def load_all(
    expdir: Path, names: Iterable[str], gpu: bool
) -> Iterator[tuple[str, Loaded]]:
    """The systems that run by themselves, one after the other, in one Whisper."""
    backbone: Backbone | None = None
    for name in names:
        loaded = load(expdir / name, backbone)
        if loaded is None:
            continue
        used, system, what = loaded
        if what["type"] != FULL:
            backbone = used
        if gpu:
            used.to("cuda")
            system.to("cuda")
        yield name, loaded


def load(folder: Path, backbone: Backbone | None) -> Loaded | None:
    """A system that runs by itself; None if the folder holds none, or not all of it."""
    try:
        return load_system(folder, backbone) if is_system(folder) else None
    except FileNotFoundError as error:
        logging.warning(f"not looked into: {error}")
        return None


def spread(known: Mapping[str, str], count: int) -> list[str]:
    """At most so many utterances of each language, evenly from all of them."""
    chosen = []
    for lang in sorted(set(known.values())):
        utts = sorted(utt for utt, of in known.items() if of == lang)
        picks = np.linspace(0, len(utts) - 1, min(count, len(utts))).round()
        chosen += [utts[int(i)] for i in picks]
    return chosen


def weights_of(mole: MoLE) -> tuple[list[str], dict[str, np.ndarray]]:
    """A MoLE's experts and its weights over them by the matrix's key."""
    alpha_IN = mole.fusion.alpha_IN.detach().cpu().numpy()
    return mole.languages, {key: alpha_IN[i] for key, i in mole.fusion.index.items()}


def states_of(
    folder: Path, loaded: Loaded, clips: Mapping[str, np.ndarray], langs: Sequence[str]
) -> np.ndarray:
    """Encoder states of the clips; experts are told the languages."""
    backbone, system, what = loaded
    vanilla = what["type"] == VANILLA
    digest = hashlib.sha256(json.dumps([what, [*clips], [*langs]]).encode())
    for path in files_of(folder):
        digest.update(path.read_bytes())

    def compute() -> np.ndarray:
        with tqdm(total=len(clips), desc=f"{folder} encoder states", ncols=79) as bar:
            told = langs if what["type"] == "experts" else None
            ready = [*clips.values()]
            return mean_states(
                backbone, system, ready, told, vanilla, progress=bar.update
            )

    return kept_states(folder / "encoder_states.npz", digest.hexdigest(), compute)


if __name__ == "__main__":
    cli.run(main)
