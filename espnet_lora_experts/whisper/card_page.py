"""What a model card says: metadata, what the model is, its data, how to load it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from espnet_lora_experts.experts.adapter import CONFIG
from espnet_lora_experts.whisper import card_facts, card_scores, languages
from espnet_lora_experts.whisper.card_scores import TASK, hub_code, table
from espnet_lora_experts.whisper.description import DESCRIPTION, read_json
from espnet_lora_experts.whisper.snapshot import HUB_ID

TITLE = "Efficient Multilingual ASR Finetuning via LoRA Language Experts"
PAPER = "https://arxiv.org/abs/2506.21555"
ABOUT = {
    "single": "One LoRA for all its languages, on a frozen Whisper. It finds the "
    "language itself, or is told.",
    "experts": "A LoRA expert for each language, on one frozen Whisper. The language "
    "must be told.",
    "mole": "LoRA language experts on one frozen Whisper, fused: lower encoder layers "
    "run a mixture of all, a router then finds the language, whose expert runs the "
    "rest.",
    "full": "Whisper, fine-tuned in all its weights.",
    "expert": "The LoRA expert of one language, on a frozen Whisper.",
    "folded": "One plain Whisper for other programs, which all pad clips to 30 s: what "
    "was trained is in its weights.",
}
LIBRARIES = {"huggingface": "transformers", "ctranslate2": "ctranslate2"}
"""Of an export's format, as the hub calls them."""
LOADING = {
    "huggingface": [
        "from transformers import pipeline",
        'transcribe = pipeline("automatic-speech-recognition", model="{}")',
        'print(transcribe("clip.wav")["text"])',
    ],
    "ctranslate2": [
        "from faster_whisper import WhisperModel",
        'segments, _ = WhisperModel("{}").transcribe("clip.wav", language="{}")',
        'print("".join(segment.text for segment in segments))',
    ],
}
"""How to load an export, by its place and its first language."""


@dataclass(frozen=True)
class Pages:
    """The cards of one system.

    Attributes:
        folder: The system's.
        what: Its description.
        scores: Its part of ``results.json``; {} if unknown.
        meta: What ``results.json`` says of itself.
        repo_id: Where it is on the hub; "" if it is not.
    """

    folder: Path
    what: Mapping[str, Any]
    scores: Mapping[str, Any]
    meta: Mapping[str, Any]
    repo_id: str = ""

    def system(self) -> tuple[ModelCardData, str]:
        """Metadata and text of the system's own card."""
        kind, place = self.what["type"], self.repo_id or self.folder.resolve().name
        experts = self.what.get("experts", {})
        lang = self._codes[0] if kind == "experts" else ""
        loading = {"": _ours(place, lang)}
        if kind == "full":
            loading["In transformers"] = _whisper(place, "backbone")
        for name in [*experts][:1]:
            which = "One expert in plain PEFT" if len(experts) > 1 else "In plain PEFT"
            loading[which] = self._peft(place, f"experts/{name}")
        made_of = self._made_of(experts)
        return self._card(place, kind, self._codes, *made_of, loading)

    def expert(self, name: str, alone: bool = False) -> tuple[ModelCardData, str]:
        """Metadata and text of one expert's card.

        Args:
            name: The expert.
            alone: Whether the hub's repository is the expert's, not the system's.
        """
        home = self.folder / self.what["experts"][name]
        kind, codes = self.what["type"], self._codes
        if kind != "single":
            kind, codes = "expert", [name]
        place, subfolder = self.repo_id or "/".join(home.resolve().parts[-3:]), ""
        if self.repo_id and not alone:
            subfolder = f"experts/{name}"
        lang = name if subfolder and self.what["type"] == "experts" else ""
        peft = self._peft(place, subfolder)
        loading = {"": _ours(place, lang), "In plain PEFT": peft}
        title = f"{place}/{subfolder}" if subfolder else place
        # A MoLE's steps and scores are not those of the experts that went into it.
        trainings = [] if self.what["type"] == "mole" else [home.parents[1]]
        return self._card(title, kind, codes, [home], trainings, loading)

    def exported(
        self, place: str, facts: Mapping[str, Any]
    ) -> tuple[ModelCardData, str]:
        """Metadata and text of the card of an export that is one Whisper.

        Its error rates are not the system's, so there are none.

        Args:
            place: Its folder.
            facts: Its ``export.json``.
        """
        to, codes = facts["format"], facts["languages"]
        experts = self.what.get("experts", {})
        told = {code: experts[code] for code in codes if code in experts}
        loading = {"": [line.format(place, codes[0]) for line in LOADING[to]]}
        data, text = replace(self, scores={})._card(
            place, "folded", codes, *self._made_of(told or experts), loading
        )
        data.library_name, data.base_model_relation = LIBRARIES[to], "finetune"
        return data, text

    def _made_of(self, experts: Mapping[str, str]) -> tuple[list[Path], list[Path]]:
        """Folders of the experts, and of the trainings behind the system."""
        adapters = [self.folder / path for path in experts.values()]
        alone = self.what["type"] == "mole"
        homes = [] if alone else [home.parents[1] for home in adapters]
        return adapters, list(dict.fromkeys([self.folder, *homes]))

    @property
    def _codes(self) -> list[str]:
        return list(self.what["languages"])

    @property
    def _base(self) -> str:
        """The Whisper that was trained on; a folder of this machine by its name."""
        name = self.what["backbone"].get("base", self.what["backbone"]["name"])
        return name if HUB_ID.fullmatch(name) else f"path/to/{Path(name).name}"

    def _peft(self, place: str, subfolder: str) -> list[str]:
        where = f', subfolder="{subfolder}"' if subfolder else ""
        return [
            "from peft import PeftModel",
            *_whisper(self._base),
            f'model = PeftModel.from_pretrained(whisper, "{place}"{where})',
        ]

    def _card(
        self,
        title: str,
        kind: str,
        codes: Sequence[str],
        adapters: Sequence[Path],
        trainings: Sequence[Path],
        loading: Mapping[str, Sequence[str]],
    ) -> tuple[ModelCardData, str]:
        scores = self.scores if trainings else {}
        rows = self._model(kind, codes, adapters)
        if trainings:
            rows += self._training(kind, trainings)
        sections = {
            "": [ABOUT[kind], "", *table(rows)],
            "How to load": _code(loading),
            "Training data": _data(trainings, codes),
            "Results": card_scores.page(scores, self.meta, codes),
            "Source": [
                f"[{TITLE}]({PAPER}), Interspeech 2025, in the ESPnet plug-in "
                "`espnet_lora_experts`."
            ],
        }
        text = "\n\n".join(
            "\n".join([*([f"## {name}", ""] if name else []), *lines])
            for name, lines in sections.items()
            if lines
        )
        results = card_scores.eval_results(scores, self.meta, codes)
        return self._metadata(title, kind, codes, results), f"# {title}\n\n{text}"

    def _metadata(
        self, title: str, kind: str, codes: Sequence[str], results: list[EvalResult]
    ) -> ModelCardData:
        full = kind == "full"
        return ModelCardData(
            base_model=self._base if HUB_ID.fullmatch(self._base) else None,
            base_model_relation="finetune" if full else "adapter",
            language=[hub_code(code) for code in codes],
            library_name="transformers" if full else "peft",
            metrics=["wer", "cer"] if results else None,
            pipeline_tag=TASK,
            tags=["whisper", "espnet", "lora-experts", *([] if full else ["lora"])],
            model_name=title.rpartition("/")[2] if results else None,
            eval_results=results or None,
        )

    def _model(
        self, kind: str, codes: Sequence[str], adapters: Sequence[Path]
    ) -> list[list[str]]:
        """What the model is."""
        what, sha256 = self.what, self.what["backbone"]["sha256"]
        rows = [
            ["", ""],
            ["languages", ", ".join(languages.title(code) for code in codes)],
        ]
        rows.append(["backbone", f"{self._base}, sha256 {sha256[:12]}"])
        rows += [["LoRA", text] for text in dict.fromkeys(map(_lora, adapters))]
        mole = what.get("mole", {}) if kind == "mole" else {}
        return rows + [[key.replace("_", " "), str(x)] for key, x in mole.items()]

    def _training(self, kind: str, trainings: Sequence[Path]) -> list[list[str]]:
        """How it was trained, as far as the first training says."""
        alone = kind in ("expert", "folded")
        sizes = () if alone else ("trained_params", "deployed_params")
        what = _own(trainings[0]) if kind == "expert" else self.what
        counts = [key for key in (*sizes, "epochs", "steps") if key in what]
        rows = [
            [key.replace("_params", " parameters"), f"{what[key]:,}"] for key in counts
        ]
        options = next(filter(None, map(card_facts.options, trainings)), {})
        return rows + [[key, text] for key, text in options.items()]


def _own(training: Path) -> Mapping[str, Any]:
    """What a training says of itself: of experts combined, each had its own."""
    path = training / DESCRIPTION
    return read_json(path) if path.is_file() else {}


def _ours(place: str, lang: str = "") -> list[str]:
    told = f', lang="{lang}"' if lang else ""
    return [
        "from espnet_lora_experts import Speech2Text",
        f'speech2text = Speech2Text.from_pretrained("{place}")',
        f'print(speech2text("clip.wav"{told}).text)',
    ]


def _whisper(name: str, subfolder: str = "") -> list[str]:
    where = f', subfolder="{subfolder}"' if subfolder else ""
    loader = "WhisperForConditionalGeneration"
    return [
        f"from transformers import {loader}",
        f'whisper = {loader}.from_pretrained("{name}"{where})',
    ]


def _code(blocks: Mapping[str, Sequence[str]]) -> list[str]:
    """Blocks of Python, each under its heading."""
    lines: list[str] = []
    for heading, code in blocks.items():
        lines += ["", f"{heading}:", ""] if heading else []
        lines += ["```python", *code, "```"]
    return lines


def _lora(folder: Path) -> str:
    config = read_json(folder / CONFIG)
    targets = config["target_modules"]
    if isinstance(targets, list):
        targets = " ".join(sorted(targets))
    return f"r {config['r']}, lora_alpha {config['lora_alpha']}, on {targets}"


def _data(folders: Iterable[Path], codes: Sequence[str]) -> list[str]:
    """Utterances and hours of each language that was trained on."""
    lines = []
    for folder in folders:
        sets, data = card_facts.training_data(folder)
        rows = [
            [languages.title(code), f"{data[code][0]:,}", f"{data[code][1]:.2f}"]
            for code in codes
            if code in data
        ]
        if rows:
            header = [f"language ({', '.join(sets)})", "utterances", "hours"]
            lines += ["", *table([header, *rows])] if lines else table([header, *rows])
    return lines
