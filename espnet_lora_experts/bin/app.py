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
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from espnet_lora_experts.bin import cli
from espnet_lora_experts.bin.app_page import CSS, build
from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.description import DESCRIPTION, read_description
from espnet_lora_experts.whisper.folder import FULL, is_system

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""


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
