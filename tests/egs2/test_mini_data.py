"""Stage 1 of the embedded recipe, on small fake packages."""

import importlib
import io
import shutil
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

LOCAL = Path(__file__).parents[2] / "egs2/mini_multilingual/asr1/local"
STAMPS = 40
WORDS = {"es": "palabra", "fr": "mot", "ro": "cuvânt"}


def load(name):
    """Import a script of local/, which is no package."""
    sys.path.insert(0, str(LOCAL))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(LOCAL))


clips, data_dir, debs, fillets, mini, tuxpaint = map(
    load, ("clips", "data_dir", "debs", "fillets", "mini_data", "tuxpaint")
)


def record(path, seconds=1.0, seed=0):
    """Write noise that differs for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-0.1, 0.1, int(8000 * seconds))
    soundfile.write(path, noise, 8000)


@pytest.fixture(scope="module")
def stamps(tmp_path_factory):
    """Stamps in three languages; 3 and 4 share a French text, 5 and 6 an audio."""
    root = tmp_path_factory.mktemp("stamps")
    for n in range(STAMPS):
        said = {lang: f"{word} «{n}»." for lang, word in WORDS.items()}
        if n == 4:
            said["fr"] = " MOT 3 !"
        lines = [f"word {n}", *(f"{lang}.utf8={text}" for lang, text in said.items())]
        folder = root / f"kind{n % 3}"
        folder.mkdir(exist_ok=True)
        (folder / f"s{n}.txt").write_text("\n".join(lines), encoding="utf-8")
        for k, lang in enumerate(WORDS):
            record(folder / f"s{n}_desc_{lang}.ogg", 0.5, n + 1000 * k)
    shutil.copy(root / "kind2/s5_desc_es.ogg", root / "kind0/s6_desc_es.ogg")
    return root


def splits_of(found, **limits):
    kept, dropped = clips.screen(found)
    return clips.split(kept, limits), dropped


def test_text_is_in_one_split_and_once(stamps):
    splits, dropped = splits_of(tuxpaint.read(stamps, list(WORDS)))
    keys = [(c.lang, clips.text_key(c.text)) for s in splits.values() for c in s]
    assert len(keys) == len(set(keys)) == 3 * STAMPS - 2
    assert dropped == {("fr", "repeated"): 1, ("es", "repeated"): 1}


def test_stamp_is_in_one_split_in_every_language(stamps):
    splits, _ = splits_of(tuxpaint.read(stamps, list(WORDS)))
    names = [{c.utt.split("_tux_")[1] for c in split} for split in splits.values()]
    assert all(names)
    assert sum(map(len, names)) == len(set.union(*names))


def test_what_shares_a_text_or_a_recording_shares_a_group(stamps):
    found = tuxpaint.read(stamps, ["ro"])
    groups = {clip.utt: clip.group for clip in found}
    assert groups["ro_tux_kind0_s3"] == groups["ro_tux_kind1_s4"]
    assert groups["ro_tux_kind2_s5"] == groups["ro_tux_kind0_s6"]
    assert len(set(groups.values())) == STAMPS - 2


def test_split_does_not_depend_on_the_other_languages(stamps):
    alone, _ = splits_of(tuxpaint.read(stamps, ["ro"]))
    together, _ = splits_of(tuxpaint.read(stamps, list(WORDS)))
    for name, members in alone.items():
        assert members == [clip for clip in together[name] if clip.lang == "ro"]


def test_limit_keeps_the_same_stamps_in_every_language(stamps):
    splits, _ = splits_of(tuxpaint.read(stamps, ["es", "ro"]), train=7)
    chosen = {lang: set() for lang in ("es", "ro")}
    for clip in splits["train"]:
        chosen[clip.lang].add(clip.group)
    assert chosen["es"] == chosen["ro"]
    assert len(splits["train"]) == 2 * 7


def test_shares_are_about_as_promised():
    names = [clips.split_of(f"group {n}") for n in range(4000)]
    assert names.count("test") / 4000 == pytest.approx(clips.TEST_SHARE, abs=0.02)
    assert names.count("dev") / 4000 == pytest.approx(clips.DEV_SHARE, abs=0.02)
    assert names != [clips.split_of(f"group {n}", seed=1) for n in range(4000)]


@pytest.mark.parametrize(
    ("text", "seconds", "reason"),
    [
        ("!?", 1.0, "no text"),
        ("a", 0.1, "under 0.3 s"),
        ("a", 31.0, "over 30 s"),
        ("a" * 50, 1.0, "text longer than its audio (over 30 characters/s)"),
        ("a", None, "unreadable audio"),
    ],
)
def test_screen_counts_each_reason(tmp_path, text, seconds, reason):
    audio = tmp_path / "a.wav"
    audio.write_bytes(b"RIFF")
    if seconds:
        record(audio, seconds)
    clip = clips.Clip("es_u", "es", "es", text, audio, "g", clips.digest(audio))
    assert clips.screen([clip]) == ([], {("es", reason): 1})


LUA = r"""
-- dialogId("no", "font_small", "Commented out.")
dialogId("a-m-jedna", "font_small", "One.")
dialogStr("Jedna \"v\195\161za\"\nna stole.")
dialogId("a-v-dve", "font_big",
    "Two.")
dialogStr(
    "Dvě.")
dialogId("a-m-ticho", "font_small", "Not recorded.")
dialogStr("Ticho.")
"""


@pytest.fixture
def fish(tmp_path):
    """Thirty levels; the last repeats the first one's sentence in other words."""
    for n in range(30):
        english = 0 if n == 29 else n
        lua = f'dialogId("x", "font_small", "Line {english}.")\ndialogStr("Věta {n}.")'
        script = tmp_path / f"script/level{n:02d}/dialogs_cs.lua"
        script.parent.mkdir(parents=True)
        script.write_text(lua, encoding="utf-8")
        record(tmp_path / f"sound/level{n:02d}/cs/x.ogg", 0.5, n)
    return tmp_path


def test_lua_escapes_and_line_breaks():
    assert fillets.parse(LUA)[:2] == [
        ("a-m-jedna", "font_small", "One.", 'Jedna "váza"\nna stole.'),
        ("a-v-dve", "font_big", "Two.", "Dvě."),
    ]


def test_dialogue_without_audio_is_left_out(tmp_path):
    (tmp_path / "script/hall").mkdir(parents=True)
    (tmp_path / "script/hall/dialogs_cs.lua").write_text(LUA, encoding="utf-8")
    record(tmp_path / "sound/hall/cs/a-m-jedna.ogg")
    record(tmp_path / "sound/share/jokes/cs/a-v-dve.ogg")
    [clip] = fillets.read(tmp_path, {"cs": tmp_path})
    assert clip.utt == "cs_fil_small_hall_a-m-jedna"
    assert clip.text == 'Jedna "váza" na stole.'


def test_levels_are_disjoint_and_no_translation_is_repeated(fish):
    found = fillets.read(fish, {"cs": fish})
    assert len(found) == 29
    splits, _ = splits_of(found)
    levels = [{clip.group for clip in split} for split in splits.values()]
    assert sum(map(len, levels)) == len(set.union(*levels)) == 29


def test_folder_is_sorted_and_speakers_are_prefixes(stamps, tmp_path):
    found = tuxpaint.read(stamps, list(WORDS))
    data_dir.write_kaldi(tmp_path, found[::-1])
    files = ("wav.scp", "text", "utt2lang", "utt2spk")
    rows = {
        name: [line.split(" ", 1) for line in (tmp_path / name).open(encoding="utf-8")]
        for name in files
    }
    ids = [utt for utt, _ in rows["text"]]
    assert ids == sorted(clip.utt for clip in found)
    assert all([utt for utt, _ in table] == ids for table in rows.values())
    speakers = [speaker.strip() for _, speaker in rows["utt2spk"]]
    assert speakers == sorted(speakers)
    assert all(map(str.startswith, ids, speakers))
    assert all(Path(path.strip()).is_absolute() for _, path in rows["wav.scp"])


def test_repeated_utterance_id_is_refused(stamps, tmp_path):
    found = tuxpaint.read(stamps, ["es"])
    with pytest.raises(ValueError, match="must be unique, but got"):
        data_dir.write_kaldi(tmp_path, found + found[:1])


def make_deb(path, folder, root):
    """Pack ``folder`` as ``root`` into a .deb: an ar archive with a data.tar."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        tar.add(folder, arcname=f"./{root}")
    members = {"debian-binary": b"2.0\n", "data.tar.xz": data.getvalue()}
    content = b"!<arch>\n"
    for name, body in members.items():
        header = f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(body):<10}`\n"
        content += header.encode() + body + b"\n" * (len(body) % 2)
    path.write_bytes(content)


@pytest.fixture
def download_dir(stamps, tmp_path, monkeypatch):
    """A folder with a package of another version, and no dpkg-deb, no apt-get."""
    monkeypatch.setattr(debs.shutil, "which", lambda _: None)
    make_deb(tmp_path / f"{tuxpaint.PACKAGE}_0.1_all.deb", stamps, tuxpaint.ROOT)
    return tmp_path


def test_main_twice_gives_the_same_files(download_dir, capsys, caplog):
    command = ["--langs", "es ro", "--download_dir", str(download_dir)]
    outputs = []
    for name in ("one", "two"):
        mini.main([*command, "--data_dir", str(download_dir / name)])
        files = sorted((download_dir / name).rglob("*"))
        outputs.append([path.read_bytes() for path in files if path.is_file()])
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 15
    assert len(capsys.readouterr().out.splitlines()) == 2 * (1 + 2 * 3)
    assert caplog.text.count("unchecked version") == 1


def test_wrong_hash_of_a_known_version_is_an_error(tmp_path):
    name = f"{tuxpaint.PACKAGE}_{debs.KNOWN[tuxpaint.PACKAGE][0]}_all.deb"
    (tmp_path / name).write_bytes(b"!<arch>\n")
    with pytest.raises(ValueError, match="sha256 of .* must be 6db6c1bf.*, but got"):
        debs.get(tuxpaint.PACKAGE, tmp_path)
    assert not (tmp_path / "unpacked").exists()


def test_interrupted_unpacking_leaves_nothing(download_dir, monkeypatch):
    def fail(deb, folder):
        (folder / "half").touch()
        raise OSError("disk full")

    monkeypatch.setattr(debs, "extract", fail)
    with pytest.raises(OSError, match="disk full"):
        debs.get(tuxpaint.PACKAGE, download_dir)
    assert not list((download_dir / "unpacked").iterdir())


def test_two_recipes_unpack_a_package_once(download_dir, monkeypatch):
    extract, extracted, found = debs.extract, [], []

    def slow_extract(deb, folder):
        extracted.append(deb)
        time.sleep(0.1)
        extract(deb, folder)

    monkeypatch.setattr(debs, "extract", slow_extract)

    def get():
        found.append(debs.get(tuxpaint.PACKAGE, download_dir))

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(extracted) == 1 and len(set(found)) == 1 and len(found) == 3


def test_missing_package_without_apt_says_what_to_do(download_dir):
    with pytest.raises(ValueError, match=r"put fillets-ng-data_<version>_all.deb"):
        debs.get(fillets.PACKAGE, download_dir)


@pytest.mark.parametrize("langs", ["es xx", ""])
def test_unknown_language_lists_the_known(langs):
    with pytest.raises(ValueError, match="known: be bg ca cs da el es fr nl ro ru"):
        mini.parse_langs(langs)
