"""Kills each long job anywhere, fills its disk, forbids it to write, and runs it again.

    python -m tests.faults --jobs all --kills 20 --seed 1

After each fault the same job is run again in the same folder, and what it makes must
be what an undisturbed run makes: files byte by byte, checkpoints by their tensors and
losses, all but times. Kills are by SIGKILL before a random change in the file system
or at a random moment, and by the system inside of a write. Faults are drawn by the
seed; only moments depend on the machine too. Disks are mounted in memory, by root
alone.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from tests.faults import attempts, state
from tests.faults.attempts import Fault, attempt
from tests.faults.jobs import JOBS, MAKES, Job, make_world

ROOMY = "1g"
HEAD = "job", "kills", "disk full", "read-only", "runs", "identical", "lost", "s"


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", default="all", help=f"some of: {', '.join(JOBS)}")
    parser.add_argument("--kills", type=int, default=20, help="of each job")
    parser.add_argument(
        "--disks", type=int, default=3, help="full ones, read-only ones"
    )
    parser.add_argument("--seed", type=int, default=1)
    return parser


class Trial:
    """One job's faults.

    Args:
        name: Of the job.
        world: What it reads.
        home: A folder for its working folders and logs.
    """

    def __init__(self, name: str, world: Path, home: Path):
        self.name, self.world, self.home = name, world, home
        self.job: Job = JOBS[name]
        self.log = home / "log"
        self.lost: list[str] = []
        self.reruns = 0

    def run(self, work: Path, fault: Fault | None = None) -> attempts.Outcome:
        """The job in a folder."""
        with self.log.open("a") as log:
            log.write(f"== {work.name} {fault}\n")
        job = partial(self.job.run, self.world)
        return attempt(job, work, self.log, fault, partial(facts, time.time()))

    def undisturbed(self) -> Path:
        """Runs it; keeps what it makes, and how long it takes."""
        work = self.folder("undisturbed")
        self.whole = self.must_end(self.run(work))
        return work

    def folder(self, name: str, disk: Path | None = None) -> Path:
        """A new working folder."""
        work = (disk or self.home) / name
        work.mkdir()
        self.job.prepare(self.world, work)
        return work

    def must_end(self, outcome: attempts.Outcome) -> dict:
        if outcome.status:
            said = self.log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{self.name} ended with {outcome.status}:\n{said}")
        return outcome.facts

    def again(self, work: Path, what: object) -> None:
        """The job once more, undisturbed: it must end, and be the same."""
        outcome = self.run(work)
        self.reruns += 1
        made = outcome.facts.get("state", {})
        if outcome.status or made != self.whole["state"]:
            pairs = set(made.items()) ^ set(self.whole["state"].items())
            other = sorted({path for path, _ in pairs})
            self.lost.append(f"{self.name}: {what}: {outcome.status} {other[:5]}")
            print(self.lost[-1], file=sys.stderr)
        shutil.rmtree(work)

    def kill(self, rng: random.Random, kills: int) -> int:
        """Kills it so many times; every third of them kills the next run too."""
        done = 0
        for i in range(4 * kills):  # a job may be over before its moment
            if done >= kills:
                break
            work, faults = self.folder(f"kill{i}"), []
            for _ in range(1 + (rng.random() < 1 / 3)):
                faults.append(attempts.draw(rng, self.whole))
                done += self.run(work, faults[-1]).killed
            self.again(work, faults)
        return done

    def starve(self, rng: random.Random, times: int) -> tuple[int, int]:
        """Full disks and read-only ones that it met."""
        full = forbidden = 0
        with attempts.disk(self.home / "disk") as set_disk:
            for i in range(times if set_disk else 0):
                work = self.folder(f"full{i}", self.home / "disk")
                held = shutil.disk_usage(work).used  # in whole blocks
                room = held + int(rng.random() * self.whole["bytes"] * 0.9)
                set_disk(room)
                full += self.run(work).status != 0
                set_disk(ROOMY)
                self.again(work, f"disk of {room} bytes")
                work = self.folder(f"forbidden{i}", self.home / "disk")
                self.run(work, attempts.draw(rng, self.whole))
                set_disk(ROOMY, "ro")
                forbidden += self.run(work).status != 0
                set_disk(ROOMY, "rw")
                self.again(work, "a read-only disk")
        return full, forbidden


def facts(begin: float) -> dict:
    """What a job has made since then, in the folder it works in."""
    stats = [p.stat() for p in Path().rglob("*") if p.is_file()]
    sizes = [x.st_size for x in stats if x.st_mtime >= begin]
    made = {"bytes": sum(sizes), "largest": max(sizes, default=0)}
    return {"state": state.of(Path()), **made}


def serve(folder: Path) -> int:
    """Serves a folder's files in another process; gives that process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    url = f"http://127.0.0.1:{server.server_port}/corpus.tar.gz"
    (folder / "url").write_text(url)
    process = os.fork()
    if not process:
        server.serve_forever()
    server.server_close()
    return process


def merge(work: Path, world: Path) -> None:
    """Adds what a job has made to the world."""
    for path in work.rglob("*"):
        target = world / path.relative_to(work)
        if path.is_symlink() and target.exists():
            continue  # the dump's
        if path.is_dir() and not path.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
        else:
            shutil.copy2(path, target, follow_symlinks=False)


class Quiet(SimpleHTTPRequestHandler):
    """A server without a log, and as slow as a disk."""

    def log_message(self, *args) -> None:
        pass

    def copyfile(self, source, outputfile) -> None:
        while block := source.read(4096):
            try:
                outputfile.write(block)
            except OSError:  # whoever asked was killed
                return
            time.sleep(0.005)


def main(cmd=None) -> int:
    """Prints a line for each job; 1 where something was lost."""
    args = get_parser().parse_args(cmd)
    names = [*JOBS] if args.jobs == "all" else args.jobs.split(",")
    torch.set_num_threads(1)  # a fork has no other thread
    lost = []
    with tempfile.TemporaryDirectory(prefix="faults") as home:
        world = Path(home, "world")
        attempt(partial(make_world, world), Path(home), Path(home, "log"))
        server = serve(world / "server")
        row = "{:16}{:>7}{:>11}{:>11}{:>7}{:>11}{:>6}{:>8}".format
        print(
            row(
                "job",
                "kills",
                "full disk",
                "read-only",
                "runs",
                "identical",
                "lost",
                "s",
            )
        )
        try:
            for name in [x for x in JOBS if x in (*names, *MAKES)]:
                lost += try_job(name, world, Path(home), args, name in names, row)
        finally:
            os.kill(server, 9)
            os.waitpid(server, 0)
    return bool(lost)


def try_job(name: str, world: Path, home: Path, args, asked: bool, row) -> list[str]:
    """One job's line; what was lost."""
    (home / name).mkdir()
    trial = Trial(name, world, home / name)
    work = trial.undisturbed()
    if asked:
        try_faults(trial, args, row)
    if name in MAKES:  # not before: faults begin where the job began
        merge(work, world)
    return trial.lost


def try_faults(trial: Trial, args, row) -> None:
    """Meets the faults; prints the line."""
    begin = time.monotonic()
    rng = random.Random(f"{args.seed} {trial.name}")
    kills = trial.kill(rng, args.kills)
    full, forbidden = trial.starve(rng, args.disks)
    runs = trial.reruns
    seconds = round(time.monotonic() - begin)
    same = runs - len(trial.lost)
    print(row(trial.name, kills, full, forbidden, runs, same, len(trial.lost), seconds))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
