"""What training and decoding need of a dump dir, ESPnet's own ones too."""

from __future__ import annotations

import logging
import random
import re
from pathlib import Path

import soundfile

from espnet_lora_experts.report.kaldi import read_table, write_table
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.audio import SAMPLE_RATE
from espnet_lora_experts.whisper.wav_scp import read_ark

FIRST, SOME = 5, 20
"""Utterances of a dump dir whose audio is checked: from its start, and at random."""
TABLES = ("wav.scp", "text", "utt2num_samples")


def check_dir(folder: Path, langs: list[str]) -> None:
    """Checks audio, and tables and languages where ``langs`` are given.

    Raises:
        FileNotFoundError: A table is missing.
        ValueError: Audio is at another rate, or an utterance has no language.
    """
    check_audio(folder)
    if langs:
        for name in TABLES:
            read_table(folder / name)
        check_languages(folder, langs)


def check_audio(folder: Path) -> None:
    """Checks that a dump dir's audio is at 16 kHz: some headers, not all.

    ESPnet's reader drops the sampling rate, so that training would hear anything else
    slowed down or sped up, and never say so.

    Raises:
        FileNotFoundError: No wav.scp.
        ValueError: An utterance's audio is unreadable or at another rate.
    """
    wavs = read_table(folder / "wav.scp")
    chosen = random.Random(0).sample([*wavs], min(SOME, len(wavs)))
    for utt in [*wavs][:FIRST] + chosen:
        try:
            ark = read_ark(wavs[utt])
            rate = ark[1] if ark else soundfile.info(wavs[utt]).samplerate
        except (soundfile.LibsndfileError, OSError, ValueError) as error:
            rate = error
        if rate != SAMPLE_RATE:
            raise ValueError(
                f"{folder}: utterance {utt} must be a file at {SAMPLE_RATE} Hz, but "
                f"got {rate} ({wavs[utt]}); run stage 2, which converts any audio"
            )


def check_languages(folder: Path, langs: list[str]) -> None:
    """Checks utt2lang; writes it where it is missing and follows from what is there.

    It follows from a single language in ``langs``, or from ids that begin with a code
    of it: ``es_...`` or ``es-...``.

    Raises:
        ValueError: It does not follow, is incomplete, or has an unknown code.
    """
    path, utts = folder / "utt2lang", [*read_table(folder / "wav.scp")]
    if path.exists():
        codes = read_table(path)
    else:
        codes = dict.fromkeys(utts, langs[0]) if len(langs) == 1 else from_ids(utts)
        lacking = [utt for utt in utts if codes[utt] not in langs]
        if lacking:
            raise ValueError(
                f"{folder} must have utt2lang with lines 'utterance code', but has"
                f" none, and {len(lacking)} of {len(utts)} ids do not begin with a code"
                f" of {' '.join(langs)}, such as {lacking[0]}; write it, or give"
                " --langs the one language that the set is in"
            )
        write_table(path, codes)
        logging.info(f"{path}: written, as it was missing")
    lacking = [utt for utt in utts if not codes.get(utt)]
    if lacking:
        raise ValueError(
            f"{path} must have a language for each utterance, but lacks {len(lacking)},"
            f" such as {lacking[0]}"
        )
    for code in sorted(set(codes.values())):
        languages.get(code)


def from_ids(utts: list[str]) -> dict[str, str]:
    """What stands before the first ``_`` or ``-`` of each id."""
    return {utt: re.split("[_-]", utt, maxsplit=1)[0] for utt in utts}
