"""Small corpora in the layouts of AISHELL, LibriSpeech, Common Voice, FLEURS and MLS.

    python -m tests.egs2.miniatures DIR

makes DIR/{commonvoice,fleurs,mls,paper8} out of Tux Paint's real speech, which is
found or fetched as in egs2/mini_multilingual. A language that Tux Paint lacks borrows
clips of another, with numbers in its own words for text: that shows that all runs.
"""

import argparse
import io
import itertools
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "egs2/mini_multilingual/asr1"
RATE = 16_000
SIZES = {"train": 24, "dev": 6, "test": 6}
RELEASE = "cv-corpus-21.0-2025-03-14"
OLD_RELEASE = "cv-corpus-5.1-2020-06-22"
COLUMNS = {
    RELEASE: "client_id path sentence_id sentence sentence_domain up_votes down_votes"
    " age gender accents variant locale segment",
    OLD_RELEASE: "client_id path sentence up_votes down_votes age gender accent locale"
    " segment",
}
FLEURS = {"ca": "ca_es", "hi": "hi_in", "ru": "ru_ru", "sw": "sw_ke"}
MLS = {"pl": "polish", "pt": "portuguese"}
PARTS = {
    "train": ["train-clean-100", "train-clean-360", "train-other-500"],
    "dev": ["dev-clean", "dev-other"],
    "test": ["test-clean", "test-other"],
}
DIGITS = {
    "ca": "zero un dos tres quatre cinc sis set vuit nou",
    "en": "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE",
    "eo": "nul unu du tri kvar kvin ses sep ok naŭ",
    "hi": "शून्य एक दो तीन चार पाँच छह सात आठ नौ",
    "id": "nol satu dua tiga empat lima enam tujuh delapan sembilan",
    "ja": "ゼロ いち に さん よん ご ろく なな はち きゅう",
    "ko": "영 일 이 삼 사 오 육 칠 팔 구",
    "pl": "zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć",
    "pt": "zero um dois três quatro cinco seis sete oito nove",
    "ru": "ноль один два три четыре пять шесть семь восемь девять",
    "sw": "sifuri moja mbili tatu nne tano sita saba nane tisa",
    "vi": "không một hai ba bốn năm sáu bảy tám chín",
    "yue": "零 一 二 三 四 五 六 七 八 九",
    "zh": "零 一 二 三 四 五 六 七 八 九",
}
Speech = Callable[[str, int], tuple[np.ndarray, str]]
"""Samples at RATE and text of a language's clip number n."""


def digits(lang: str, number: int) -> str:
    """A number of three digits in words."""
    return " ".join(DIGITS[lang].split()[int(digit)] for digit in f"{number:03d}")


def noise(lang: str, number: int) -> tuple[np.ndarray, str]:
    """Not speech, but quick to make: for tests of readers."""
    seed = number + sum(map(ord, lang)) * 1000
    return np.random.default_rng(seed).uniform(-0.1, 0.1, 3200), digits(lang, number)


def tuxpaint(download_dir: Path) -> Speech:
    """Real speech: a language's own clips with their text, or borrowed ones."""
    sys.path.insert(0, str(MINI / "local"))
    import clips
    import debs
    import tuxpaint

    sys.path.remove(str(MINI / "local"))
    sys.path.insert(0, str(ROOT))
    from espnet_lora_experts.whisper.audio import read_audio

    root = debs.get(tuxpaint.PACKAGE, download_dir) / tuxpaint.ROOT
    found: dict[str, list] = {lang: [] for lang in tuxpaint.LANGS}
    for clip in clips.screen(tuxpaint.read(root, list(tuxpaint.LANGS)))[0]:
        found[clip.lang].append(clip)
    lenders = itertools.cycle(["es", "fr", "ro", "el", "bg"])
    lent = {lang: found[next(lenders)] for lang in sorted(set(DIGITS) - set(found))}

    def speech(lang: str, number: int) -> tuple[np.ndarray, str]:
        pool = found.get(lang) or lent[lang]
        clip = pool[number * 7 % len(pool)]
        text = clip.text if lang in found else digits(lang, number)
        return read_audio(clip.audio), text

    return speech


def numbered(sizes: dict[str, int]) -> Iterator[tuple[str, int]]:
    """(split, number) of each clip; numbers go on from split to split."""
    yield from zip(
        [split for split, size in sizes.items() for _ in range(size)],
        itertools.count(1),
        strict=False,
    )


def commonvoice(
    root: Path,
    speech: Speech,
    langs: Sequence[str],
    sizes: dict[str, int] = SIZES,
    release: str = RELEASE,
) -> None:
    """root/<release>/<locale>/{train,dev,test,validated}.tsv and clips/*.mp3."""
    for lang in langs:
        locale = {"zh": "zh-CN"}.get(lang, lang)
        home = root / release / locale
        (home / "clips").mkdir(parents=True)
        columns = COLUMNS[release].split()
        tables: dict[str, list[str]] = {split: [] for split in [*sizes, "validated"]}
        for split, n in numbered(sizes):
            samples, text = speech(lang, n)
            name = f"common_voice_{locale}_{20_000_000 + n}.mp3"
            soundfile.write(home / "clips" / name, samples, RATE, format="MP3")
            speaker = f"{split}{n % 3}".encode().hex().ljust(128, "0")
            known = {"client_id": speaker, "path": name, "sentence": text}
            known |= {"sentence_id": f"id{n}", "up_votes": "2", "down_votes": "0"}
            row = "\t".join(known.get(c, "") for c in columns[:-2]) + f"\t{locale}\t"
            tables[split].append(row)
            tables["validated"].append(row)
        for name, rows in tables.items():
            lines = ["\t".join(columns), *rows]
            (home / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def fleurs(
    root: Path, speech: Speech, langs: Sequence[str], sizes: dict[str, int] = SIZES
) -> None:
    """root/<name>.tar.gz with <name>/{train,dev,test}.tsv and audio/<split>/*.wav."""
    root.mkdir(parents=True, exist_ok=True)
    for lang in langs:
        name = FLEURS[lang]
        tables: dict[str, list[str]] = {split: [] for split in sizes}
        with tarfile.open(root / f"{name}.tar.gz", "w:gz") as tar:
            for split, n in numbered(sizes):
                samples, text = speech(lang, n)
                wav = io.BytesIO()
                soundfile.write(wav, samples, RATE, format="WAV", subtype="FLOAT")
                file = f"{10**15 + n}.wav"
                add(tar, f"{name}/audio/{split}/{file}", wav.getvalue())
                spelt = " ".join(text.lower().replace(" ", "|")) + " |"
                fields = [n, file, text, text.lower().rstrip("."), spelt]
                fields += [len(samples), "MALE"]
                tables[split].append("\t".join(map(str, fields)) + "\n")
            for split, rows in tables.items():
                add(tar, f"{name}/{split}.tsv", "".join(rows).encode())


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to an archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def mls(
    root: Path, speech: Speech, langs: Sequence[str], sizes: dict[str, int] = SIZES
) -> None:
    """root/mls_<language>/<split>/transcripts.txt, audio/<speaker>/<book>/<id>.flac."""
    for lang in langs:
        home = root / f"mls_{MLS[lang]}"
        tables: dict[str, list[tuple[str, str]]] = {split: [] for split in sizes}
        for split, n in numbered(sizes):
            samples, text = speech(lang, n)
            speaker = str({"train": 1, "dev": 20, "test": 300}[split] + n % 2)
            name = f"{speaker}_77_{n:06d}"
            write(home / split / "audio" / speaker / "77" / f"{name}.flac", samples)
            tables[split].append((name, text.lower()))
        for split, rows in tables.items():
            lines = [f"{name}\t{text}\n" for name, text in rows]
            (home / split / "transcripts.txt").write_text("".join(lines), "utf-8")
        limited = home / "train/limited_supervision"
        names = [name for name, _ in tables["train"]]
        for k, folder in enumerate([*(f"1hr/{n}" for n in range(6)), "9hr"]):
            (limited / folder).mkdir(parents=True)
            (limited / folder / "handles.txt").write_text(f"{names[k]}\n")


def write(path: Path, samples: np.ndarray) -> None:
    """Write an audio file and the folders around it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE)


def librispeech(root: Path, speech: Speech, sizes: dict[str, int] = SIZES) -> None:
    """root/LibriSpeech/<part>/<speaker>/<chapter>/*.flac, *.trans.txt; SPEAKERS.TXT."""
    home = root / "LibriSpeech"
    speakers = []
    for split, n in numbered(sizes):
        samples, text = speech("en", n)
        part = PARTS[split][n % len(PARTS[split])]
        speaker = str(100 * [*PARTS].index(split) + 10 + n % len(PARTS[split]))
        folder = home / part / speaker / "1234"
        write(folder / f"{speaker}-1234-{n:04d}.flac", samples)
        with (folder / f"{speaker}-1234.trans.txt").open("a") as trans:
            trans.write(f"{speaker}-1234-{n:04d} {text.upper()}\n")
        speakers.append(f"{speaker:4s} | F | {part:16s} | 25.03 | Reader {speaker}\n")
    comment = ";ID  |SEX| SUBSET           |MINUTES| NAME\n"
    (home / "SPEAKERS.TXT").write_text(comment + "".join(sorted(set(speakers))))
    (home / "LICENSE.TXT").touch()


def aishell(root: Path, speech: Speech, sizes: dict[str, int] = SIZES) -> None:
    """root/data_aishell/wav/<split>/<speaker>/*.wav, transcript/*.txt."""
    home = root / "data_aishell"
    lines = []
    for split, n in numbered(sizes):
        samples, text = speech("zh", n)
        speaker = f"S0{[*sizes].index(split)}{n % 2:02d}"
        name = f"BAC009{speaker}W{n:04d}"
        write(home / "wav" / split / speaker / f"{name}.wav", samples)
        lines.append(f"{name} {text}\n")
    (home / "transcript").mkdir()
    path = home / "transcript/aishell_transcript_v0.8.txt"
    path.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Make the four folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path, help="folder to make")
    parser.add_argument(
        "--download_dir", type=Path, default=MINI / "downloads", help="has Tux Paint"
    )
    args = parser.parse_args()
    speech = tuxpaint(args.download_dir)
    commonvoice(args.dir / "commonvoice", speech, ["ca", "eo"])
    fleurs(args.dir / "fleurs", speech, ["ca", "hi", "sw"])
    mls(args.dir / "mls", speech, ["pl", "pt"])
    librispeech(args.dir / "paper8", speech)
    aishell(args.dir / "paper8", speech)
    commonvoice(args.dir / "paper8", speech, ["ko", "ja", "id", "ru", "vi", "yue"])
    print(f"{args.dir}: commonvoice, fleurs, mls and paper8")


if __name__ == "__main__":
    main()
