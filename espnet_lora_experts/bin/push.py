"""Uploads a trained system, or one expert of it, to the Hugging Face hub.

    python -m espnet_lora_experts.bin.push exp/kd user/whisper-tiny-es-ru --dry_run
    python -m espnet_lora_experts.bin.push exp/kd user/whisper-tiny-es-ru --private
    python -m espnet_lora_experts.bin.push exp/mono/experts/es user/whisper-tiny-es

Weights, descriptions and model cards go up, nothing else. Cards take their error rates
from results.json; a README.md that you wrote or edited stays as it is. Log in by
`hf auth login` first, or set HF_TOKEN. Afterwards, anywhere:

    Speech2Text.from_pretrained("user/whisper-tiny-es-ru")
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from tqdm import tqdm

from espnet_lora_experts.bin import cli
from espnet_lora_experts.whisper.card import update_cards
from espnet_lora_experts.whisper.description import DESCRIPTION, read_json
from espnet_lora_experts.whisper.publish import contents, push, size

RESULTS = "results.json"


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="of a system (exp/kd) or of an expert")
    add("repo_id", help="user/name on the hub; made where it does not exist")
    add("--private", action="store_true", help="a new repository is private")
    add("--license", help="for the cards, e.g. cc-by-4.0; depends on your data")
    add("--results", type=Path, help="default: results.json beside the system's folder")
    add("--message", default="", help="of the commit; default: Upload and the folder")
    add("--dry_run", action="store_true", help="list what would go up, change nothing")
    return parser


def main(cmd=None) -> None:
    """Brings the cards up to date and uploads."""
    cli.show_log()
    args = get_parser().parse_args(cmd)
    if args.dry_run:
        list_files(args.folder, args.repo_id)
        return
    contents(args.folder)  # what cannot go up is an error before cards change
    results = read_results(args.folder, args.results)
    update_cards(args.folder, results, args.repo_id, args.license)
    print(push(args.folder, args.repo_id, args.private, message=args.message))


def list_files(folder: Path, repo_id: str) -> None:
    """Prints each file's size in bytes and its path in the repository."""
    sizes = {path: size(source) for path, source in sorted(contents(folder).items())}
    for path, count in sizes.items():
        print(f"{tqdm.format_sizeof(count):>6}  {repo_id}/{path}")
    total = tqdm.format_sizeof(sum(sizes.values()))
    print(f"{total:>6}  {len(sizes)} files; nothing was sent")


def read_results(folder: Path, path: Path | None) -> dict | None:
    """The content of results.json, from where scoring writes it unless it is named.

    Raises:
        ValueError: The file that is named is not there, or is broken.
    """
    alone = not (folder / DESCRIPTION).is_file()
    system = folder.resolve().parent.parent if alone else folder.resolve()
    found = path or system.parent / RESULTS
    if path and not path.is_file():
        raise ValueError(f"--results must be a file, but got {path}")
    if not found.is_file():
        logging.warning(f"{found} does not exist, so the cards have no error rates")
        return None
    return read_json(found)


if __name__ == "__main__":
    cli.run(main)
