#!/usr/bin/env python3
"""Write data/{train,dev,test} from real speech in Debian packages."""

import argparse
import logging
from collections import Counter
from pathlib import Path

import clips
import data_dir
import debs
import fillets
import tuxpaint

from espnet_lora_experts.bin import cli

logger = logging.getLogger(__name__)
LANGS = (*fillets.LANGS, *tuxpaint.LANGS)


def get_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        prog="local/data.sh",
        description=__doc__,
        epilog=f"Known languages: {' '.join(sorted(LANGS))}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--langs", default="es fr ro ru", help="languages, separated by spaces")
    add("--download_dir", type=Path, default="downloads", help="holds or gets *.deb")
    add("--data_dir", type=Path, default="data", help="holds train, dev and test")
    for name in clips.SPLITS:
        add(f"--max_{name}", type=int, help=f"utterances of each language in {name}")
    add("--seed", type=int, default=0, help="another seed is another split")
    return parser


def parse_langs(text: str) -> list[str]:
    """Languages of a list separated by spaces or commas.

    Raises:
        ValueError: When there is none, or one is unknown.
    """
    langs = list(dict.fromkeys(text.replace(",", " ").split()))
    unknown = [lang for lang in langs if lang not in LANGS]
    if unknown or not langs:
        raise ValueError(
            f"--langs must name known languages, but got {unknown or text!r};"
            f" known: {' '.join(sorted(LANGS))}"
        )
    return langs


def collect(langs: list[str], download_dir: Path) -> list[clips.Clip]:
    """All clips of the languages, from the packages that hold them."""
    found: list[clips.Clip] = []
    if set(langs) & set(tuxpaint.LANGS):
        root = debs.get(tuxpaint.PACKAGE, download_dir) / tuxpaint.ROOT
        found += tuxpaint.read(root, langs)
    acted = [lang for lang in langs if lang in fillets.LANGS]
    if acted:
        scripts = debs.get(fillets.PACKAGE, download_dir) / fillets.ROOT
        packages = {lang: f"{fillets.PACKAGE}-{lang}" for lang in acted}
        sounds = {
            k: debs.get(v, download_dir) / fillets.ROOT for k, v in packages.items()
        }
        found += fillets.read(scripts, sounds)
    return found


def table(splits: dict[str, list[clips.Clip]], langs: list[str]) -> str:
    """Utterances, minutes and seconds per utterance of each language and split."""
    rows = ["lang  split   utts  minutes  mean_s"]
    for lang in langs:
        for name, members in splits.items():
            seconds = [clip.seconds for clip in members if clip.lang == lang]
            mean = sum(seconds) / max(len(seconds), 1)
            total = sum(seconds) / 60
            rows.append(
                f"{lang:4s}  {name:5s}  {len(seconds):5d}  {total:7.1f}  {mean:6.2f}"
            )
    return "\n".join(rows)


def main(cmd: list[str] | None = None) -> None:
    """Fetch, screen, split, write."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    langs = parse_langs(args.langs)
    kept, dropped = clips.screen(collect(langs, args.download_dir))
    for (lang, reason), count in sorted(Counter(dropped).items()):
        logger.info("%s: %d dropped: %s", lang, count, reason)
    limits = {name: getattr(args, f"max_{name}") for name in clips.SPLITS}
    splits = clips.split(kept, limits, args.seed)
    for name, members in splits.items():
        data_dir.write_kaldi(args.data_dir / name, members)
    print(table(splits, langs))


if __name__ == "__main__":
    cli.run(main)
