"""Every parser of files that may come from strangers, with good files to start from."""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import seeds
from tests.fuzz.mutate import Case

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Parser:
    """What is fuzzed.

    Attributes:
        name: Its name.
        seeds: Files that it takes.
        read: Reads the files of a folder.
        named: Whether its errors must name a file; a text by itself has none.
    """

    name: str
    seeds: list[Case]
    read: Callable[[Path], object]
    named: bool = True


def adapter() -> Parser:
    """PEFT adapter folders into a bank."""
    from espnet_lora_experts.experts.store import load_expert

    bank = seeds.small_bank()

    def read(folder: Path) -> None:
        load_expert(bank, "es", folder)
        bank.drop("es")

    return Parser("adapter", seeds.adapters(), read)


def checkpoint() -> Parser:
    """Files of torch.save: ESPnet's epochs, adapters of older PEFT."""
    from espnet_lora_experts.experts.checkpoint import load_tensors
    from espnet_lora_experts.whisper.artefacts import describe

    def read(folder: Path) -> None:
        load_tensors(folder / "1epoch.pth")
        describe(folder / "1epoch.pth")

    return Parser("checkpoint", seeds.checkpoint("1epoch.pth"), read)


def system() -> Parser:
    """A system's folder: system.json, adapters, model card."""
    from espnet_lora_experts.whisper.artefacts import describe
    from espnet_lora_experts.whisper.source import find

    def read(folder: Path) -> None:
        describe(folder)
        find(folder)

    return Parser("system", seeds.systems(), read)


def whisper() -> Parser:
    """A Whisper's folder in Hugging Face's layout, before it is loaded."""
    from espnet_lora_experts.whisper.artefacts import describe
    from espnet_lora_experts.whisper.hub import weight_files
    from espnet_lora_experts.whisper.soundness import check_whisper

    def read(folder: Path) -> None:
        describe(folder)
        check_whisper(folder, weight_files(folder))

    return Parser("whisper", seeds.whisper_folders(), read)


def ggml() -> Parser:
    """whisper.cpp's files."""
    from espnet_lora_experts.whisper.artefacts import describe
    from espnet_lora_experts.whisper.convert_local import read_foreign

    def read(folder: Path) -> None:
        describe(folder / "model.bin")
        read_foreign(folder / "model.bin")

    return Parser("ggml", seeds.ggml(), read)


def ct2() -> Parser:
    """CTranslate2's folders."""
    from espnet_lora_experts.whisper.artefacts import describe
    from espnet_lora_experts.whisper.convert_local import read_foreign

    def read(folder: Path) -> None:
        describe(folder)
        read_foreign(folder)

    return Parser("ct2", seeds.ct2(), read)


def packed() -> Parser:
    """ESPnet's packed models: described, then unpacked."""
    from espnet_lora_experts.plugin.unpacking import unpack_checked
    from espnet_lora_experts.whisper.artefacts import describe

    def read(folder: Path) -> None:
        describe(folder / "model.zip")
        unpack_checked(folder / "model.zip", folder / "out")

    return Parser("packed", seeds.packed(), read)


def packed_inside() -> Parser:
    """The same, whole zips with changed files in them."""
    whole = packed()

    def read(folder: Path) -> None:
        rezip(folder / "model.zip", {"meta": "meta.yaml", "c": "a/c.y", "p": "a/1.pth"})
        whole.read(folder)

    inside = {"meta": seeds.META.encode(), "c": seeds.YAML, "p": b"abc"}
    return Parser("packed_inside", [inside], read)


def checkpoint_inside() -> Parser:
    """Files of torch.save, whole zips with changed files in them."""
    whole = checkpoint()
    cases, names = [], {}
    for case in whole.seeds:
        with zipfile.ZipFile(io.BytesIO(case["1epoch.pth"])) as archive:
            members = [x for x in archive.namelist() if "/.data/" not in x]
            names |= {member.replace("/", "~"): member for member in members}
            cases.append({m.replace("/", "~"): archive.read(m) for m in members})

    def read(folder: Path) -> None:
        rezip(folder / "1epoch.pth", names)
        whole.read(folder)

    return Parser("checkpoint_inside", cases, read)


def rezip(path: Path, names: dict[str, str]) -> None:
    """Writes a zip of the files beside it, under other names."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, inside in names.items():
            if (path.parent / name).is_file():
                archive.write(path.parent / name, inside)


def audio() -> Parser:
    """Recordings."""
    from espnet_lora_experts.whisper.audio import read_audio

    return Parser("audio", seeds.audio(), lambda x: read_audio(x / "a.wav", 3600))


def table() -> Parser:
    """Kaldi's tables: wav.scp, text, utt2lang, utt2spk."""
    from espnet_lora_experts.report.kaldi import read_table

    lines = "u1 /a/b c.wav\nu2 sox x.wav -t wav - |\nú3\tуже  да \n\nu4\n"
    return Parser(
        "table", [{"text": lines.encode()}], lambda folder: read_table(folder / "text")
    )


def options() -> Parser:
    """YAMLs of options, and ESPnet's config.yaml of a training."""
    from espnet_lora_experts.bin import cli
    from espnet_lora_experts.whisper import card_facts
    from espnet_lora_experts.whisper.artefacts import describe

    def read(folder: Path) -> None:
        describe(folder)
        card_facts.options(folder)
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--max_epoch", type=int)
        parser.add_argument("--seed", type=float)
        parser.add_argument("--optim", choices=["adamw"])
        parser.add_argument("--model")
        try:
            cli.parse(parser, ["--config", str(folder / "config.yaml")])
        except (argparse.ArgumentError, SystemExit):  # which argparse prints
            pass

    flat = b"max_epoch: 3\nseed: 0.5\noptim: adamw\nmodel: 'no'\n"
    cases = [{"config.yaml": x, "1epoch.pth": b""} for x in (flat, seeds.YAML)]
    return Parser("options", cases, read)


def card() -> Parser:
    """Model cards."""
    from espnet_lora_experts.whisper.card import is_ours, languages_of

    def read(folder: Path) -> None:
        languages_of(folder)
        is_ours((folder / "README.md").read_text(encoding="utf-8", errors="replace"))

    return Parser("card", [{"README.md": seeds.CARD}], read)


def results() -> Parser:
    """results.json, of which the report is made."""
    from espnet_lora_experts.report.page.sources import read_results

    content = b'{"meta": {"seed": 0}, "systems": {"kd": {"aware": {"avg_wer": 1.5}}}}'
    case = {"results.json": content}
    return Parser("results", [case], lambda x: read_results(x / "results.json"))


def language() -> Parser:
    """Codes of languages, and texts to normalise."""
    from espnet_lora_experts.whisper import languages

    def read(folder: Path) -> None:
        code, _, text = (
            (folder / "x").read_text("utf-8", errors="surrogateescape").partition("\n")
        )
        languages.normalize(text, "tr")
        languages.normalize(text, code)

    texts = ("es\n¿Qué  hora es?", "yue\n你好，世界。", "hi\nनमस्ते, दुनिया!")
    cases = [{"x": text.encode()} for text in texts]
    return Parser("language", cases, read, named=False)


def corpus() -> Parser:
    """The readers of mini_multilingual: Debian packages, scripts, stamps."""
    sys.path.insert(0, str(ROOT / "egs2/mini_multilingual/asr1/local"))
    import clips
    import debs
    import fillets
    import tuxpaint

    def read(folder: Path) -> None:
        level = folder / "script" / "level"
        level.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "dialogs_cs.lua", level)
        for *_, text in fillets.dialogs(folder, "cs"):
            clips.text_key(text)
        tuxpaint.read_texts(folder / "a.txt")
        clips.duration(folder / "a.ogg")
        shutil.rmtree(folder / "out", ignore_errors=True)
        debs.extract(folder / "p_1_all.deb", folder / "out")

    case = seeds.deb()[0]
    case["dialogs_cs.lua"] = (
        b'dialogId("let-m", "font_small", "What \\"kind\\"?")\n-- no\n'
        b'dialogStr("Co\\195\\xa9 je\\n to?")\n'
    )
    case["a.txt"] = "A cat.\nes.utf8=Un gato.\nru.utf8=Кот\n".encode()
    case["a.ogg"] = seeds.audio()[6]["a.wav"]
    return Parser("corpus", [case], read)


MAKERS: dict[str, Callable[[], Parser]] = {
    maker.__name__: maker
    for maker in (
        *(adapter, checkpoint, checkpoint_inside, system, whisper, ggml, ct2, packed),
        *(packed_inside, audio, table, options, card, results, language, corpus),
    )
}
"""What makes each parser; imports take seconds, so they are inside."""
