"""A page that transcribes what you record or upload, trained systems side by side.

    python -m espnet_lora_experts.bin.app --expdir exp --systems "kd mole mono"

Then open http://127.0.0.1:7860. A system is a folder of --expdir with a system.json;
where no language is given, language experts (mono) take the one that plain Whisper
finds. Only this machine reaches the page, and the page asks nothing of any other.
Uploads lie in a private folder, for about an hour, and are gone when the app ends.
Needs gradio: pip install "espnet_lora_experts[demo]".
"""

from __future__ import annotations

import argparse
import html
import logging
import os
import signal
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from espnet_lora_experts.bin import cli
from espnet_lora_experts.inference import Result, Speech2Text
from espnet_lora_experts.inference.segmentation import SILENT
from espnet_lora_experts.report.page.parts import system_title
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.audio import SAMPLE_RATE, TooLong, read_audio
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.description import DESCRIPTION, read_description
from espnet_lora_experts.whisper.folder import FULL, is_system

AUTO = ""
"""Choice of language: each system finds it."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""
KEPT_SECONDS = 3600
"""Age at which an upload is deleted while the app runs."""
RUNNING = "running …"
"""Facts about a result that is to come."""
CSS = """
.cards { display: grid; align-items: start;
         grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)) }
"""


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--expdir", default="exp", type=Path, help="folder of the trained systems")
    add("--systems", default="", help='e.g. "kd mole mono"; default: all of --expdir')
    add("--host", default=LOOPBACK[0], help="address to listen on")
    add("--port", default=7860, type=int)
    add("--ngpu", default=0, type=int, help="1: on a GPU")
    add(
        "--share",
        default="never",
        choices=("never", "gradio"),
        help="gradio: also by a public link of gradio.live, through its servers",
    )
    add("--max_upload_mb", default=25, type=int, help="largest file that is taken")
    add("--max_duration", default=120.0, type=float, help="longest speech, in seconds")
    return parser


def main(cmd=None) -> None:
    """Loads the systems, then serves the page until it is interrupted."""
    cli.show_log()
    logging.getLogger("httpx").setLevel("WARNING")  # gradio asks itself if it runs
    args = cli.parse(get_parser(), cmd)
    check(args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder goes
    with tempfile.TemporaryDirectory(prefix="espnet_lora_experts.") as folder:
        gr = import_gradio(folder)
        names = find_systems(args.expdir, args.systems)
        systems = load_systems(args.expdir, names, "cuda" if args.ngpu else "cpu")
        serve(gr, build(gr, systems, args.max_duration), args)


def check(args: argparse.Namespace) -> None:
    """Refuses limits that are none; warns when others can reach the page."""
    for name in ("max_upload_mb", "max_duration"):
        if getattr(args, name) <= 0:
            raise ValueError(f"--{name} must be above 0, but got {getattr(args, name)}")
    public = [] if args.host in LOOPBACK else [f"--host {args.host}"]
    public += [] if args.share == "never" else [f"--share {args.share}"]
    if public:
        logging.warning(
            f"{' and '.join(public)}: other machines can reach the app, which asks for "
            "no password; without these options only this one can"
        )


def import_gradio(folder: str):
    """Gradio without telemetry, its temporary files in a folder.

    Raises:
        ValueError: It is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the app must have gradio, but {error.name} is not installed; "
            'pip install "espnet_lora_experts[demo]"'
        ) from error
    return gradio


def find_systems(expdir: Path, names: str) -> list[str]:
    """The systems that are named, or else all that are there.

    Raises:
        FileNotFoundError: There is none.
    """
    if names.split():
        return list(dict.fromkeys(names.split()))
    folders = sorted(path.parent for path in expdir.glob(f"*/{DESCRIPTION}"))
    found = [folder.name for folder in folders if is_system(folder)]
    if not found:
        raise FileNotFoundError(
            f"--expdir must hold trained systems, but {expdir} has none; recipes leave "
            "them in their exp"
        )
    return found


def load_systems(
    expdir: Path, names: Sequence[str], device: str = "cpu"
) -> dict[str, Speech2Text]:
    """Loads each system once; all share the weights of one Whisper where they can.

    Raises:
        FileNotFoundError: A folder holds no system.
        ValueError: One is broken, or holds no system by itself.
    """
    whats = {name: read_description(expdir / name) for name in names}
    frozen = [what["backbone"] for what in whats.values() if what["type"] != FULL]
    whisper = None
    if frozen:
        whisper = Backbone.from_pretrained(frozen[0]["name"]).to(device)
    systems = {}
    for name in tqdm(names, desc="loading", ncols=79):
        system = Speech2Text.from_pretrained(expdir / name, whisper, device)
        if whats[name]["type"] == "experts":
            codes = system.system.languages
            system.two_pass(Speech2Text.vanilla(system.backbone, codes))
        systems[name] = system
    return systems


def name_of(code: str) -> str:
    """English name of a language.

    Example:
        >>> name_of("ht")
        'Haitian Creole'
    """
    return languages.get(code).name.title()


def language_choices(codes: Iterable[str]) -> list[tuple[str, str]]:
    """Names and codes for the drop-down, by name.

    Example:
        >>> language_choices(["ru", "es"])
        [('Find the language', ''), ('Russian', 'ru'), ('Spanish', 'es')]
    """
    named = sorted((name_of(code), code) for code in set(codes))
    return [("Find the language", AUTO), *named]


def read_clip(path: str | None, max_duration: float) -> np.ndarray:
    """Samples of what was recorded or uploaded, 16 kHz, (S,).

    Raises:
        ValueError: There is nothing, no audio in it, too much, or silence.
    """
    if path is None:
        raise ValueError("There is no speech yet: record or upload some.")
    name = Path(path).name
    try:
        samples = read_audio(path, max_duration)
    except TooLong as error:
        raise ValueError(
            f"{name} must be {max_duration:g} s long at most: cut it first."
        ) from error
    except ValueError as error:
        logging.info(f"refused: {error}")
        raise ValueError(
            f"{name} cannot be read as audio: upload wav, flac, ogg or mp3."
        ) from error
    if np.abs(samples).max() < SILENT:
        raise ValueError(f"{name} is silent: is the microphone muted?")
    return samples


def transcribe(
    system: Speech2Text, samples: np.ndarray, lang: str
) -> tuple[str, dict[str, float], str]:
    """What a system makes of a clip: text, posteriors by language's name, facts.

    Args:
        system: The system.
        samples: The clip.
        lang: Its language, or :data:`AUTO`.
    """
    known = system.system.languages
    if lang != AUTO and lang not in known:
        return "", {}, f"Knows {', '.join(map(name_of, known))} only."
    start = time.perf_counter()
    result = system(samples, lang or None)
    seconds = time.perf_counter() - start
    how = "given" if lang else "found by Whisper" if system.finder else "found"
    line = facts(result, seconds, len(samples) / SAMPLE_RATE, how)
    posteriors = {name_of(code): p for code, p in result.posteriors.items()}
    return result.text, posteriors, line


def facts(result: Result, seconds: float, duration: float, how: str) -> str:
    """A line about a result.

    Args:
        result: What a system returned.
        seconds: Time it took.
        duration: Of the clip, in seconds.
        how: How its language became known.

    Example:
        >>> facts(Result("hola", "es", {}, -1.25, ["hola"]), 0.5, 2.0, "given")
        'Spanish (given) · score -1.25 · 0.50 s (RTF 0.25)'
    """
    parts = [
        f"{name_of(result.lang)} ({how})" if result.lang else "nobody speaks",
        f"score {result.score:.2f}",
        f"{seconds:.2f} s (RTF {seconds / duration:.2f})",
        *([] if result.ended else ["cut at the most tokens"]),
    ]
    return " · ".join(parts)


def is_leftward(text: str) -> bool:
    """Whether a text runs from right to left.

    Example:
        >>> is_leftward("hola"), is_leftward("שלום")
        (False, True)
    """
    return any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text)


def build(gr, systems: Mapping[str, Speech2Text], max_duration: float):
    """The page: speech and choices, and a card for each system."""
    codes = [code for system in systems.values() for code in system.system.languages]
    keep = (KEPT_SECONDS // 6, KEPT_SECONDS)
    with gr.Blocks(title="LoRA language experts", delete_cache=keep) as page:
        gr.Markdown(
            f"# LoRA language experts\nRecord or upload up to {max_duration:g} seconds "
            "of speech."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                speech = gr.Audio(type="filepath", label="Speech", buttons=[])
                lang = gr.Dropdown(
                    language_choices(codes), value=AUTO, label="Language"
                )
                chosen = gr.CheckboxGroup([*systems], value=[*systems], label="Systems")
                button = gr.Button("Transcribe", variant="primary")
            with gr.Column(scale=2, min_width=280, elem_classes="cards"):
                cards = {name: Card(gr, name) for name in systems}

        def run(path, lang, names) -> Iterator[dict]:
            try:
                if not names:
                    raise ValueError("There is no system chosen: choose one.")
                samples = read_clip(path, max_duration)
                for name, card in cards.items():
                    yield card.emptied(RUNNING, visible=name in names)
                for name in [name for name in systems if name in names]:
                    yield cards[name].filled(*transcribe(systems[name], samples, lang))
            except ValueError as error:
                for card in cards.values():
                    yield card.emptied()
                text = html.escape(str(error))
                raise gr.Error(text, print_exception=False) from error

        outputs = [part for card in cards.values() for part in card.parts]
        # One run at a time: systems of one Whisper wait for each other anyway.
        button.click(
            run,
            [speech, lang, chosen],
            outputs,
            concurrency_limit=1,
            show_progress="hidden",  # the cards show it
            api_visibility="private",
        )
    return page


class Card:
    """What the page shows of one system.

    Args:
        gr: Gradio, inside its page.
        name: The system's.
    """

    def __init__(self, gr, name: str):
        self.gr = gr
        with gr.Column() as column:
            text = gr.Textbox(
                label=": ".join(filter(None, (name, system_title(name)))),
                info="",
                lines=2,
                interactive=False,
                buttons=["copy"],
            )
            chart = gr.Label(
                label="Language", show_heading=False, num_top_classes=5, visible=False
            )
        self.parts = column, text, chart

    def emptied(self, facts: str = "", visible: bool = True) -> dict:
        """Changes that leave it without a result."""
        column = {self.parts[0]: self.gr.Column(visible=visible)}
        return column | self.filled("", {}, facts)

    def filled(self, text: str, posteriors: dict[str, float], facts: str) -> dict:
        """Changes by a result, as :func:`transcribe` gives it."""
        gr, (_, box, chart) = self.gr, self.parts
        return {
            box: gr.Textbox(text, info=facts, rtl=is_leftward(text)),
            chart: gr.Label(posteriors or None, visible=bool(posteriors)),
        }


def serve(gr, page, args: argparse.Namespace) -> None:
    """Listens until it is interrupted.

    Raises:
        ValueError: The address cannot be listened on.
    """
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    theme.set(
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300"
    )
    try:
        _, url, shared = page.queue(max_size=16, api_open=False).launch(
            server_name=args.host,
            server_port=args.port,
            share=args.share == "gradio",
            max_file_size=f"{args.max_upload_mb}mb",
            theme=theme,
            css=CSS,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise ValueError(
            f"--host and --port must be free to listen on, but got {args.host} and "
            f"{args.port}: {error}"
        ) from error
    logging.info(f"open {shared or url} in a browser; Ctrl-C ends the app")
    try:
        page.block_thread()
    finally:
        page.close()


if __name__ == "__main__":
    cli.run(main)
