"""Stage 9: decodes test sets with every system, language-aware and language-agnostic.

    python -m espnet_lora_experts.bin.decode --expdir exp --systems "vanilla multi" \
        --data_root dump/raw --test_sets test --langs "es ru"

Writes ``output.<job>/1best_recog/{text,token,score,lang}`` as ``asr_inference`` does in
``exp/<system>/decode_<mode>/<set>/``, and merges the jobs into that folder.
Known systems: ``vanilla`` (padded to 30 s), ``two_pass`` (vanilla finds the language,
then the experts of ``mono``), and any folder of ``--expdir`` with a ``system.json``. A
system is decoded in another way as ``NAME@30s``: its clips padded to 30 s;
``NAME@top2``: a MoLE's two most probable experts; ``two_pass@NAME``: the system NAME
finds the language, then the experts. Experts of a tag, ``mono_TAG``, have their
``two_pass_TAG``. A clip for which a system finds the language that it is told in the
other mode is decoded once.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import torch
from tqdm import tqdm

from espnet_lora_experts.bin import cli
from espnet_lora_experts.bin.tasks import (
    CROSS,
    OPTIONS,
    PADDED,
    Task,
    describe_way,
    is_done,
    modes_of,
    signature,
)
from espnet_lora_experts.inference import Result, Speech2Text
from espnet_lora_experts.inference.memory import Memory
from espnet_lora_experts.report import decodes
from espnet_lora_experts.report.kaldi import read_table, write_table
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.description import write_json
from espnet_lora_experts.whisper.precision import AUTOCAST
from espnet_lora_experts.whisper.systems import Single

TABLES = ("text", "token", "score", "lang")


def get_parser() -> argparse.ArgumentParser:
    """Options of this stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--expdir", default="exp", type=Path)
    parser.add_argument("--systems", required=True, help='e.g. "vanilla multi mole kd"')
    parser.add_argument("--modes", default="aware agnostic")
    parser.add_argument("--data_root", default="dump/raw", type=Path)
    parser.add_argument("--test_sets", default="test")
    parser.add_argument("--langs", required=True, help="languages that may be found")
    parser.add_argument("--backbone", default="openai/whisper-tiny")
    parser.add_argument("--batch_seconds", type=float, default=160.0)
    parser.add_argument("--autocast", default="none", choices=AUTOCAST)
    parser.add_argument("--beam_size", type=int, default=1, help="1: greedy")
    parser.add_argument(
        "--length_penalty", type=float, default=1.0, help="exponent; for beams"
    )
    parser.add_argument("--max_tokens", type=int, help="of a transcript; default: 224")
    parser.add_argument(
        "--maxlenratio", type=float, default=1.0, help="most tokens per 20 ms of speech"
    )
    parser.add_argument(
        "--no_repeat_ngram_size",
        type=int,
        default=0,
        help="so many tokens in a row never come twice in a transcript; 0: they may",
    )
    parser.add_argument(
        "--cross", action="store_true", help="each expert of mono on every language"
    )
    parser.add_argument("--ngpu", type=int, default=0)
    parser.add_argument("--nj", type=int, default=1, help="number of jobs")
    parser.add_argument("--job", type=int, default=1, help="this job; 0 merges all")
    parser.add_argument("--skip_done", action="store_true", help="keep what is decoded")
    return parser


def main(cmd=None) -> None:
    """Decodes this job's share of every test set with every system."""
    cli.show_log()
    args = cli.parse(get_parser(), cmd)
    work = [
        Task(system, mode, args.data_root / test_set, args.expdir)
        for system in args.systems.split()
        for mode in modes_of(system, args.modes.split(), args)
        for test_set in args.test_sets.split()
    ]
    if args.skip_done:
        work = [task for task in work if not is_done(task, args)]
    if args.job:
        decode_all(work, args)
    if args.nj == 1 or not args.job:
        for task in work:
            merge(task.folder, args.nj, signature(task, args))


def decode_all(work: Sequence[Task], args) -> None:
    """Decodes with one system after the other, all in one Whisper where possible."""
    backbone = Backbone.from_pretrained(args.backbone)
    if args.ngpu:
        backbone = backbone.to("cuda")
    memory = Memory()
    for _, tasks in groupby(work, key=lambda task: task.system):
        recognizer = None
        for task in tasks:
            recognizer = recognizer or load(task, backbone, args)
            who = recognizer
            if task.mode.startswith(CROSS):
                expert = task.mode.removeprefix(CROSS)
                who = who.with_system(Single(who.system.languages, expert))
            decode_set(who, task, args, memory)


def load(task: Task, backbone: Backbone, args) -> Speech2Text:
    """A task's system, on the backbone's device."""
    kwargs = {name: getattr(args, name) for name in OPTIONS if hasattr(args, name)}
    kwargs |= {"device": backbone.hf.device, "backbone": backbone}
    if task.way:
        describe_way(task)
    if task.name == "vanilla":
        return vanilla(args, **kwargs)
    padded = task.way == PADDED
    tuned = Speech2Text.from_pretrained(task.trained, pad_to_30s=padded, **kwargs)
    if task.top_k:
        tuned.system.top_k = task.top_k
    if not task.two_pass:
        return tuned
    if task.finder is None:
        return tuned.two_pass(vanilla(args, **kwargs))
    return tuned.two_pass(Speech2Text.from_pretrained(task.finder, **kwargs))


def vanilla(args, backbone: Backbone, device: torch.device, **kwargs) -> Speech2Text:
    """Whisper as it came."""
    return Speech2Text.vanilla(backbone, args.langs.split(), **kwargs)


def decode_set(recognizer: Speech2Text, task: Task, args, memory: Memory) -> None:
    """Decodes one job's share of one set; longest clips first."""
    wavs, folder = read_table(task.data / "wav.scp"), task.folder
    utts = sorted(wavs)[args.job - 1 :: args.nj]
    langs = known_languages(task, wavs, memory)
    clips = [(wavs[utt], langs[utt]) for utt in utts]
    with tqdm(total=len(utts), desc=f"{folder}", ncols=79, mininterval=5) as bar:
        said = memory.ask(recognizer, clips, task.voice, bar.update)
    results = [one.result for one in said]
    cut = [u for u, result in zip(utts, results, strict=True) if not result.ended]
    if cut:
        logging.warning(f"{folder}: {len(cut)} reached the most tokens: {cut[:10]}")
    job = folder / f"output.{args.job}"
    write_tables(job / "1best_recog", utts, results)
    facts = {"s": sum(x.s for x in said), "audio_s": sum(x.audio_s for x in said)}
    write_json(job / "decode.json", facts | {"threads": torch.get_num_threads()})


def known_languages(task: Task, wavs, memory: Memory) -> dict[str, str | None]:
    """Each utterance's language: given, or as a first pass found it; else None."""
    utt2lang = read_table(task.data / "utt2lang")
    decodes.require(wavs, utt2lang, f"{task.data}/utt2lang")
    if task.mode != "agnostic":
        return utt2lang
    if not task.two_pass:
        return dict.fromkeys(wavs)
    first = replace(task, system=task.finder.name if task.finder else "vanilla").voice
    heard = {utt: memory.get(path, None, first) for utt, path in wavs.items()}
    return {
        utt: said.result.lang if said and len(said.result.segments) == 1 else None
        for utt, said in heard.items()
    }


def write_tables(folder: Path, utts: list[str], results: list[Result]) -> None:
    """One line an utterance in each table."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "text": [" ".join(result.text.split()) for result in results],
        "token": [" ".join(result.tokens) for result in results],
        "score": [f"{result.score:.4f}" for result in results],
        "lang": [result.lang for result in results],
    }
    for name, values in columns.items():
        write_table(folder / name, dict(zip(utts, values, strict=True)))


def merge(folder: Path, nj: int, made_by: str) -> None:
    """Puts the jobs' tables together, sorted by utterance."""
    jobs = [folder / f"output.{job}" for job in range(1, nj + 1)]
    missing = [str(job) for job in jobs if not (job / "decode.json").exists()]
    if missing:
        raise FileNotFoundError(f"all jobs must have finished, but {missing} have not")
    for name in TABLES:
        parts = [read_table(job / "1best_recog" / name) for job in jobs]
        rows = sorted(row for part in parts for row in part.items())
        write_table(folder / name, dict(rows))
    facts = [json.loads((job / "decode.json").read_text()) for job in jobs]
    seconds, audio = (sum(fact[k] for fact in facts) for k in ("s", "audio_s"))
    rtf = seconds / audio if audio else 0.0
    about = {"rtf": rtf, "s": seconds, "audio_s": audio, "signature": made_by}
    write_json(folder / "decode.json", about)


if __name__ == "__main__":
    cli.run(main)
