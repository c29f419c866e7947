#!/usr/bin/env python3
"""FLEURS: <name>/{train,dev,test}.tsv without header, and audio/<split>/*.wav.

It is given away in two forms, and both are read: <name>.tar.gz with everything, and a
hub's folder <name> with audio/<split>.tar.gz. Where neither is there, the first is
downloaded.
"""

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import corpus
import fetch
from data_dir import Utterance, one_line, slug

from espnet_lora_experts.bin import cli

URL = "https://storage.googleapis.com/xtreme_translations/FLEURS102/{}.tar.gz"
NAMES = """
af_za am_et ar_eg as_in ast_es az_az be_by bg_bg bn_in bs_ba ca_es ceb_ph ckb_iq
cmn_hans_cn cs_cz cy_gb da_dk de_de el_gr en_us es_419 et_ee fa_ir ff_sn fi_fi fil_ph
fr_fr ga_ie gl_es gu_in ha_ng he_il hi_in hr_hr hu_hu hy_am id_id ig_ng is_is it_it
ja_jp jv_id ka_ge kam_ke kea_cv kk_kz km_kh kn_in ko_kr ky_kg lb_lu lg_ug ln_cd lo_la
lt_lt luo_ke lv_lv mi_nz mk_mk ml_in mn_mn mr_in ms_my mt_mt my_mm nb_no ne_np nl_nl
nso_za ny_mw oc_fr om_et or_in pa_in pl_pl ps_af pt_br ro_ro ru_ru sd_in sk_sk sl_si
sn_zw so_so sr_rs sv_se sw_ke ta_in te_in tg_tj th_th tr_tr uk_ua umb_ao ur_pk uz_uz
vi_vn wo_sn xh_za yo_ng yue_hant_hk zu_za
""".split()
_CODES = {"cmn": "zh", "fil": "tl", "jv": "jw", "nb": "no"}
LANGS = {_CODES.get(code, code): n for n in NAMES for code in [n.partition("_")[0]]}
"""FLEURS' name of each language by Whisper's code."""
ID, FILE, RAW, NORMALIZED = 0, 1, 2, 3
"""Columns; those behind are letters, number of samples and gender."""
TEXTS = {"raw": RAW, "normalized": NORMALIZED}


def locate(root: Path, lang: str) -> Path:
    """Folder of a language, whole: unpacked or downloaded where it must be.

    Raises:
        ValueError: It cannot be had; says what to put where.
    """
    name = LANGS[lang]
    hub = root / "data" / name
    folder = hub if hub.is_dir() else root / name
    fetch.provide(folder, name, root / f"{name}.tar.gz", URL.format(name))
    for split in corpus.SPLITS:
        archive = folder / "audio" / f"{split}.tar.gz"
        if archive.is_file():
            fetch.provide(folder / "audio" / split, split, archive)
    return folder


def read(folder: Path, lang: str, split: str, column: int = RAW) -> Iterator[Utterance]:
    """Utterances of an official split. Speakers are not told: each is its own.

    Raises:
        ValueError: The tsv is missing, or a line is none of its.
    """
    path = corpus.required(folder / f"{split}.tsv", f"FLEURS' {lang}")
    corpus.required(folder / "audio" / split, f"FLEURS' {lang}")
    for number, line in enumerate(corpus.lines_of(path), 1):
        fields = line.split("\t")
        if len(fields) <= NORMALIZED:
            raise ValueError(
                f"{path}, line {number}, must have id, file, text and normalized text,"
                f" but has {fields}"
            )
        utt = f"{lang}_{fields[ID]}_{slug(Path(fields[FILE]).stem)}"
        audio = f"{folder}/audio/{split}/{fields[FILE]}"
        yield Utterance(utt, utt, lang, one_line(fields[column]), audio)


def reader(root: Path, text: str) -> corpus.Read:
    """The function that reads a split."""
    folder_of = cache(lambda lang: locate(root, lang))
    return lambda lang, split: read(folder_of(lang), lang, split, TEXTS[text])


def main(cmd: list[str] | None = None) -> None:
    """Write data/{train,dev,test}."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = corpus.get_parser(__doc__)
    add = parser.add_argument
    add("--fleurs", type=Path, default=Path("downloads"), help="its folder")
    add(
        "--text", default="raw", choices=TEXTS, help="with case and punctuation, or not"
    )
    args = parser.parse_args(cmd)
    langs = corpus.parse_langs(args.langs, LANGS)
    corpus.prepare(args, langs, reader(args.fleurs, args.text))


if __name__ == "__main__":
    cli.run(main)
