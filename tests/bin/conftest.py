"""Kaldi data dirs of noise, for the command lines."""

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="session")
def write_table():
    """Writes ``key value`` lines."""

    def write(path, rows):
        lines = [f"{key} {value}\n" for key, value in rows.items()]
        path.write_text("".join(lines), encoding="utf-8")

    return write


@pytest.fixture(scope="session")
def write_data(write_table):
    """Writes a data dir of ``{utterance: (language, seconds, text)}``."""

    def write(folder, utts, rate=16_000, channels=1, suffix="flac"):
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.RandomState(0)
        wavs = {utt: folder / f"{utt}.{suffix}" for utt in utts}
        for utt, path in wavs.items():
            shape = int(utts[utt][1] * rate), channels
            soundfile.write(path, rng.uniform(-0.5, 0.5, shape), rate)
        write_table(folder / "wav.scp", wavs)
        write_table(folder / "utt2lang", {utt: row[0] for utt, row in utts.items()})
        write_table(folder / "text", {utt: row[2] for utt, row in utts.items()})
        return folder

    return write
