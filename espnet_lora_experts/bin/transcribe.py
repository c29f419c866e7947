"""Transcribes speech files of any length: to text, subtitles or JSON.

    espnet-lora-experts transcribe talk.ogg --model exp/kd
    espnet-lora-experts transcribe *.wav --model exp/mono --lang es --format srt,json
    find speech -name "*.flac" | espnet-lora-experts transcribe --model exp/kd \\
        --output_dir out --skip_done

One file's transcript is printed; of several, a line each: path, tab, text, or with
--format json an object. Subtitles of several files, and several formats, are written as
NAME.srt and so on into --output_dir. A file that cannot be read is named, the others go
on, and the exit status is 1. Progress and messages go to standard error.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from espnet_lora_experts import atomic
from espnet_lora_experts.bin import cli
from espnet_lora_experts.report.transcripts import FORMATS, LINES

GROUP, GROUP_SECONDS = 64, 600
"""Most files in memory at once, and most seconds of them where they are several."""
DECODING = {
    "beam_size": (int, "hypotheses of each utterance; 1: greedy"),
    "length_penalty": (float, "exponent; for beams"),
    "max_tokens": (int, "most tokens of a transcript"),
    "maxlenratio": (float, "most tokens for each 20 ms of speech"),
    "no_repeat_ngram_size": (int, "so many tokens never come twice; 0: they may"),
    "batch_seconds": (float, "most seconds of a padded batch: memory and speed"),
    "autocast": (str, "type of matrix products: none, auto, bfloat16 or float16"),
    "segmentation": (str, "of recordings: auto (by voice over 30 s), vad or windows"),
    "max_segment": (float, "most seconds of a segment; few give short subtitles"),
    "device": (str, "for example cpu or cuda"),
}
"""Options of ``Speech2Text``, whose own defaults hold where they are not given."""


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("files", nargs="*", help="audio; - or none: a list, a path a line, is piped")
    add("--model", required=True, help="folder of a system (exp/kd), or hub id")
    add("--lang", default="auto", help="language of all files; auto: found in each")
    add("--format", default="txt", help="of txt, srt, vtt and json, e.g. txt,srt")
    add("--output_dir", type=Path, help="for files; default, where they are needed: .")
    add("--skip_done", action="store_true", help="leave out whose files are there")
    for name, (kind, about) in DECODING.items():
        add(f"--{name}", type=kind, help=about)
    return parser


def main(cmd=None) -> None:
    """Transcribes all files.

    Raises:
        ValueError: Options that do not fit, or, at the end, files that were not read.
    """
    args = cli.parse(get_parser(), cmd)
    paths = paths_of(args.files)
    output = Output.of(args.output_dir, formats_of(args.format), paths)
    if args.skip_done and output.folder is None:
        raise ValueError("--skip_done must come with --output_dir, but got none")
    if args.skip_done:
        paths = [p for p in paths if not all(x.exists() for x in output.files(p))]
    if paths:
        failed = transcribe(paths, load(args), args.lang, output.write)
        if output.folder is not None:
            wrote = f"{len(paths) - failed} of {len(paths)} files"
            print(f"transcribed {wrote}, into {output.folder}", file=sys.stderr)
        if failed:
            raise ValueError(
                f"all files must be readable audio, but {failed} of {len(paths)} are "
                "not; they are named above"
            )


def formats_of(text: str) -> list[str]:
    """The formats named by an option, separated by commas or spaces.

    Example:
        >>> formats_of("txt,srt")
        ['txt', 'srt']
    """
    formats = re.findall(r"[^, ]+", text)
    if not formats or set(formats) - set(FORMATS):
        raise ValueError(f"--format must be of {[*FORMATS]}, but got {text!r}")
    return formats


def paths_of(files: Sequence[str]) -> list[str]:
    """The files; ``-`` or none stands for the lines of standard input."""
    if not files and sys.stdin.isatty():
        raise ValueError("files must be named, or a list of them piped, but got none")
    paths: list[str] = []
    for name in files or ["-"]:
        paths += sys.stdin.read().splitlines() if name == "-" else [name]
    paths = [path for path in paths if path.strip()]
    if not paths:
        raise ValueError("standard input must name a file a line, but is empty")
    return paths


def load(args: argparse.Namespace):
    """The system, with the options that were given."""
    from espnet_lora_experts.inference import Speech2Text  # seconds, not for --help

    given = {name: getattr(args, name) for name in DECODING}
    options = {name: value for name, value in given.items() if value is not None}
    return Speech2Text.from_pretrained(args.model, **options)


def transcribe(
    paths: Sequence[str], speech2text, lang: str, write: Callable[[str, object], None]
) -> int:
    """Transcribes files, each written with its group; the number of unreadable ones."""
    failed: list[str] = []
    batches: list[int] = []
    with tqdm(total=len(paths), unit="file", ncols=79) as bar:

        def skip(path: str, reason: object) -> None:
            failed.append(path)
            bar.write(f"error: {reason}", file=sys.stderr)
            bar.update()

        def heard(done: int) -> None:
            batches.append(done)
            bar.set_postfix(batches=len(batches))  # a long recording has many
            bar.update(done)

        for group in read_groups(paths, skip):
            clips = [clip for _, clip in group]
            results = speech2text(clips, None if lang == "auto" else lang, heard)
            for (path, _), result in zip(group, results, strict=True):
                write(path, result)
    return len(failed)


def read_groups(
    paths: Iterable[str], skip: Callable[[str, object], None]
) -> Iterator[list[tuple[str, object]]]:
    """Paths with their samples, as many at once as fit into memory."""
    group: list[tuple[str, object]] = []
    seconds = 0.0
    for path in paths:
        try:
            clip, length = read(path)
        except ValueError as error:
            skip(path, error)
            continue
        if group and (seconds + length > GROUP_SECONDS or len(group) == GROUP):
            yield group
            group, seconds = [], 0.0
        group.append((path, clip))
        seconds += length
    if group:
        yield group


def read(path: str):
    """Samples and seconds of a file.

    Raises:
        ValueError: As :func:`~.inference.recordings.read`.
    """
    from espnet_lora_experts.inference import recordings  # seconds, not for --help
    from espnet_lora_experts.whisper.audio import SAMPLE_RATE

    samples_S = recordings.read(path)
    return samples_S, len(samples_S) / SAMPLE_RATE


@dataclass(frozen=True)
class Output:
    """Where transcripts go: into a folder, or else to standard output.

    Attributes:
        formats: Of each transcript.
        folder: For a file of each format; None prints.
        several: Whether a printed transcript must name its file.
    """

    formats: Sequence[str]
    folder: Path | None
    several: bool

    @classmethod
    def of(cls, folder: Path | None, formats: Sequence[str], paths: Sequence[str]):
        """The output of a command.

        Raises:
            ValueError: Two files would be written under one name.
        """
        several = len(paths) > 1
        printed = len(formats) == 1 and (not several or formats[0] in LINES)
        if folder is None and not printed:
            folder = Path()
        if folder is not None:
            _check_names(paths)
        return cls(formats, folder, several)

    def files(self, path: str) -> list[Path]:
        """What is written for an audio file."""
        return [Path(self.folder or "", f"{Path(path).stem}.{f}") for f in self.formats]

    def write(self, path: str, result) -> None:
        """Writes or prints one transcript; a file is whole or not there."""
        if self.folder is None:
            [name] = self.formats
            form = LINES[name] if self.several else FORMATS[name]
            tqdm.write(form(result, path), file=sys.stdout, end="")
            sys.stdout.flush()
            return
        for name, file in zip(self.formats, self.files(path), strict=True):
            atomic.write_text(file, FORMATS[name](result, path))


def _check_names(paths: Sequence[str]) -> None:
    counts = Counter(Path(path).stem for path in paths)
    stem, count = counts.most_common(1)[0]
    if count > 1:
        twice = [path for path in paths if Path(path).stem == stem]
        raise ValueError(
            "files must have different names for --output_dir, but "
            f"{' and '.join(twice[:2])} are both {stem!r}; transcribe one by one, or "
            "each folder into an --output_dir of its own"
        )


if __name__ == "__main__":
    cli.run(main)
