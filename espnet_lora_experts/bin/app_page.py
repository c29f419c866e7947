"""The app's page: what it shows, and what it does with a clip."""

from __future__ import annotations

import html
import logging
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from espnet_lora_experts.inference import Result, Speech2Text
from espnet_lora_experts.inference.segmentation import SILENT
from espnet_lora_experts.report.page.parts import system_title
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.audio import SAMPLE_RATE, TooLong, read_audio

AUTO = ""
"""Choice of language: each system finds it."""
KEPT_SECONDS = 3600
"""Age at which an upload is deleted while the app runs."""
RUNNING = "running …"
"""Facts about a result that is to come."""
CSS = """
.cards { display: grid; align-items: start;
         grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)) }
"""


def build(gr, systems: Mapping[str, Speech2Text], max_duration: float):
    """The page: speech and choices, and a card for each system.

    Args:
        gr: Gradio.
        systems: The systems by their names.
        max_duration: Longest speech, in seconds.
    """
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
