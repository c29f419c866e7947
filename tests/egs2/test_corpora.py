"""Stage 1 of recipes for corpora, on miniatures in the corpora's own layouts."""

import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import soundfile

SIZES = {"train": 8, "dev": 3, "test": 4}


@pytest.fixture(scope="module")
def corpora(miniatures, tmp_path_factory):
    """All five corpora, of noise; nobody changes them."""
    root = tmp_path_factory.mktemp("corpora")
    speech = miniatures.noise
    for release in (miniatures.RELEASE, miniatures.OLD_RELEASE):
        miniatures.commonvoice(root / "cv", speech, ["ca", "eo"], SIZES, release)
    miniatures.commonvoice(root / "cv", speech, ["ja", "ru", "yue"], SIZES)
    miniatures.fleurs(root / "fleurs", speech, ["ca", "hi"], SIZES)
    miniatures.mls(root / "mls", speech, ["pl", "pt"], SIZES)
    miniatures.librispeech(root, speech, SIZES)
    miniatures.aishell(root, speech, SIZES)
    return root


@pytest.fixture
def cv(corpora, tmp_path):
    """A Common Voice of one's own, to break."""
    shutil.copytree(corpora / "cv", tmp_path / "cv")
    return tmp_path / "cv"


def options_of(recipe, root):
    folders = {
        "commonvoice": ["--langs", "ca eo", "--commonvoice", root / "cv"],
        "fleurs": ["--langs", "ca hi", "--fleurs", root / "fleurs"],
        "mls": ["--langs", "pl pt", "--mls", root / "mls"],
        "paper8": ["--langs", "zh en ja ru yue", "--commonvoice", root / "cv"],
    }
    more = ["--aishell", root, "--librispeech", root] if recipe == "paper8" else []
    return folders[recipe] + more


def expected(miniatures, lang):
    """Texts of each split, as the corpus has them."""
    texts, kept = {split: [] for split in SIZES}, list(miniatures.numbered(SIZES))
    for split, n in kept:
        text = miniatures.digits(lang, n)
        texts[split].append(text.replace(" ", "") if lang == "zh" else text)
    return texts


@pytest.mark.parametrize("recipe", ["commonvoice", "fleurs", "mls", "paper8"])
def test_counts_and_texts_are_those_of_the_official_splits(
    recipe, prepared, corpora, miniatures
):
    options = options_of(recipe, corpora)
    tables = prepared(recipe, *options)
    langs = options[1].split()
    for split, size in SIZES.items():
        data = tables[split]
        numbers = Counter(data["utt2lang"].values())
        parts = {"en": 2} if split == "test" else {}  # test-clean alone
        assert numbers == {lang: parts.get(lang, size) for lang in langs}
        for lang in langs:
            wanted = expected(miniatures, lang)[split]
            texts = [t for u, t in data["text"].items() if u.startswith(f"{lang}_")]
            assert set(texts) <= set(wanted) and len(set(texts)) == numbers[lang]
        for utt, path in data["wav.scp"].items():
            assert soundfile.info(path).samplerate == 16_000
            assert utt.startswith(data["utt2spk"][utt])
    utts = [utt for data in tables.values() for utt in data["text"]]
    assert len(utts) == len(set(utts))


def test_the_newest_release_is_taken_unless_one_is_named(prepared, corpora):
    new = prepared("commonvoice", *options_of("commonvoice", corpora))
    options = [*options_of("commonvoice", corpora), "--cv_version", "5.1"]
    old = prepared("commonvoice", *options)
    assert all("/cv-corpus-21.0-" in path for path in new["dev"]["wav.scp"].values())
    assert all("/cv-corpus-5.1-" in path for path in old["dev"]["wav.scp"].values())
    assert old["dev"]["text"] == new["dev"]["text"]


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("cv-corpus-21.0-2025-03-14", (21,)),
        ("cv-corpus-4-2019-12-10", (4,)),
        ("cv-corpus-5.1-2020-06-22", (5, 1)),
        ("cv-corpus-10.0", (10,)),
        ("downloads", ()),
    ],
)
def test_releases_are_compared_by_their_numbers(local, name, numbers):
    commonvoice = local("commonvoice", "commonvoice")
    assert commonvoice.release_of(Path(name)) == numbers
    assert commonvoice.is_wanted(Path(name), "21") == (numbers == (21,))


def test_common_voice_is_taken_from_its_archive(prepared, cv):
    [home] = cv.glob("*21.0*")
    with tarfile.open(cv / f"{home.name}-eo.tar.gz", "w:gz") as tar:
        tar.add(home / "eo", f"{home.name}/eo")
    shutil.rmtree(home / "eo")
    tables = prepared("commonvoice", "--langs", "ca eo", "--commonvoice", cv)
    assert Counter(tables["train"]["utt2lang"].values()) == {"ca": 8, "eo": 8}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--langs", "de"], "de must be in .* put cv-corpus-<version>"),
        (
            ["--langs", "ca", "--cv_version", "9.0"],
            "ca of release 9.0 .*There is: .*5.1",
        ),
        (["--langs", "ca", "--locales", "ca"], "--locales must be like .* got 'ca'"),
        (["--langs", "zh", "--locales", "zh=zh-TW"], "Voice's zh-TW must be in"),
        (["--langs", "xx"], "language must be a code of the table, but got 'xx'"),
        (["--langs", ""], "--langs must name languages"),
    ],
)
def test_what_is_not_there_is_named_with_where_to_put_it(
    prepared, corpora, options, message
):
    with pytest.raises(ValueError, match=message):
        prepared("commonvoice", "--commonvoice", corpora / "cv", *options)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_missing_split_stops_before_anything_is_written(prepared, cv, split):
    path = next(cv.glob(f"*21.0*/ca/{split}.tsv"))
    path.unlink()
    with pytest.raises(ValueError, match=f"must have {split}.tsv in .*validated.tsv"):
        prepared("commonvoice", "--langs", "eo ca", "--commonvoice", cv)
    assert not list(cv.parent.glob("data/*/text"))


def broken(cv, lang="ca"):
    """Rows that cannot be used, one of each kind, in the training set of 8."""
    [home] = cv.glob(f"*21.0*/{lang}")
    lines = (home / "train.tsv").read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    sentence = rows[0].index("sentence")
    (home / "clips" / rows[1][1]).unlink()
    rows[2][sentence] = "Добры дзень"
    rows[3][sentence] = "  "
    rows.append(rows[4])
    rows.append((home / "test.tsv").read_text("utf-8").splitlines()[1].split("\t"))
    text = "\n".join("\t".join(row) for row in rows) + "\n"
    (home / "train.tsv").write_text(text, encoding="utf-8")
    return {
        "has no audio file": rows[1][1],
        "is not in the language's script": rows[2][1],
        "has no text": rows[3][1],
        "has an id that was there before": rows[4][1],
        "is in dev or test too": rows[-1][1],
    }


def test_each_offender_is_counted_and_named(prepared, cv, caplog):
    offenders = broken(cv)
    tables = prepared("commonvoice", "--langs", "ca eo", "--commonvoice", cv)
    assert Counter(tables["train"]["utt2lang"].values()) == {"ca": 5, "eo": 8}
    rows = (cv.parent / "data/left_out.tsv").read_text("utf-8").splitlines()[1:]
    left = {reason: utt for _, _, utt, reason in (row.split("\t") for row in rows)}
    assert left.keys() == offenders.keys() and len(rows) == 5
    for reason, clip in offenders.items():
        assert left[reason].endswith(Path(clip).stem)
        assert f"train of ca: left out 1 that {reason}: {left[reason]}" in caplog.text
    assert "few utterances to train on: ca 5, eo 8" in caplog.text


def test_test_sets_stay_whole_whatever_script_a_few_are_in(prepared, cv, caplog):
    [path] = cv.glob("*21.0*/ca/test.tsv")
    text = path.read_text("utf-8")
    first = text.splitlines()[1].split("\t")[3]
    path.write_text(text.replace(first, "Добры дзень"), "utf-8")
    tables = prepared("commonvoice", "--langs", "ca", "--commonvoice", cv)
    assert "Добры дзень" in tables["test"]["text"].values()
    assert len(tables["test"]["text"]) == SIZES["test"] and "; kept" in caplog.text


def test_a_folder_in_another_script_stops(prepared, cv):
    [home] = cv.glob("*21.0*")
    shutil.rmtree(home / "ca")
    shutil.copytree(home / "ru", home / "ca")
    message = "test of ca must be in LATIN letters, but 4 of 4 utterances are not"
    with pytest.raises(ValueError, match=message):
        prepared("commonvoice", "--langs", "ca", "--commonvoice", cv)


def test_a_language_without_utterances_stops_or_is_warned_of(prepared, cv, caplog):
    [home] = cv.glob("*21.0*/eo")
    header = (home / "train.tsv").read_text("utf-8").splitlines()[0] + "\n"
    (home / "dev.tsv").write_text(header)
    options = ["--langs", "ca eo", "--commonvoice", cv]
    assert set(prepared("commonvoice", *options)["dev"]["utt2lang"].values()) == {"ca"}
    assert "dev has no utterances of eo" in caplog.text
    (home / "train.tsv").write_text(header)
    with pytest.raises(ValueError, match="train of eo must have .* has none; leave eo"):
        prepared("commonvoice", *options)


def test_limits_keep_the_same_utterances_again(prepared, corpora):
    options = [*options_of("commonvoice", corpora), "--max_train", 3]
    first, again = (prepared("commonvoice", *options)["train"] for _ in range(2))
    assert first == again and Counter(first["utt2lang"].values()) == {"ca": 3, "eo": 3}
    other = prepared("commonvoice", *options, "--seed", 1)["train"]
    assert other["text"] != first["text"]


def test_fleurs_is_read_from_a_hub_s_folder_too(prepared, corpora, tmp_path):
    archive = prepared("fleurs", *options_of("fleurs", corpora))
    hub = tmp_path / "hub/data/hi_in"
    shutil.copytree(corpora / "fleurs/hi_in", hub)
    for split in SIZES:
        with tarfile.open(hub / f"audio/{split}.tar.gz", "w:gz") as tar:
            tar.add(hub / "audio" / split, split)
        shutil.rmtree(hub / "audio" / split)
    options = ["--langs", "hi", "--fleurs", tmp_path / "hub", "--text", "normalized"]
    tables = prepared("fleurs", *options)
    for split, data in tables.items():
        assert data["text"].items() <= archive[split]["text"].items()


@pytest.mark.parametrize(("supervision", "size"), [("1h", 6), ("10h", 7), ("full", 8)])
def test_mls_has_its_official_small_training_sets(prepared, corpora, supervision, size):
    options = [*options_of("mls", corpora), "--supervision", supervision]
    tables = prepared("mls", *options)
    assert Counter(tables["train"]["utt2lang"].values()) == {"pl": size, "pt": size}
    assert len(tables["test"]["text"]) == 2 * SIZES["test"]


def test_librispeech_parts_can_be_chosen_and_must_be_of_the_split(prepared, corpora):
    options = options_of("paper8", corpora)
    options[1] = "en"
    tables = prepared("paper8", *options, "--librispeech_test", "test-clean test-other")
    assert len(tables["test"]["text"]) == SIZES["test"]
    with pytest.raises(
        ValueError, match="--librispeech_train must name parts of train"
    ):
        prepared("paper8", *options, "--librispeech_train", "test-clean")


def test_aishell_speakers_come_from_their_archives_and_gaps_are_named(
    prepared, corpora, tmp_path, caplog
):
    root = tmp_path / "aishell"
    shutil.copytree(corpora / "data_aishell", root / "data_aishell")
    wav = root / "data_aishell/wav"
    for speaker in wav.glob("*/*"):
        with tarfile.open(wav / f"{speaker.name}.tar.gz", "w:gz") as tar:
            tar.add(speaker, f"{speaker.parent.name}/{speaker.name}")
    for split in SIZES:
        shutil.rmtree(wav / split)
    options = ["--langs", "zh", "--aishell", root]
    assert len(prepared("paper8", *options)["train"]["text"]) == SIZES["train"]
    next(wav.glob("train/*/*.wav")).unlink()
    shutil.copy(next(wav.glob("dev/*/*.wav")), next(wav.glob("dev/*")) / "BAC9.wav")
    assert len(prepared("paper8", *options)["train"]["text"]) == SIZES["train"] - 1
    assert "train of zh: left out 1 that has no audio file: zh_BAC009" in caplog.text
    assert "dev of zh: left out 1 that has no text: zh_BAC9" in caplog.text


@pytest.mark.parametrize(
    ("recipe", "path"),
    [
        ("mls", "mls/mls_polish/dev/transcripts.txt"),
        ("fleurs", "fleurs/hi_in/dev.tsv"),
        ("fleurs", "fleurs/hi_in/audio/dev"),
        ("paper8", "data_aishell/wav/dev"),
    ],
)
def test_every_corpus_names_the_split_that_it_lacks(
    prepared, corpora, tmp_path, recipe, path
):
    shutil.copytree(corpora, tmp_path / "copy")
    prepared(recipe, *options_of(recipe, tmp_path / "copy"))  # unpacks
    gone = tmp_path / "copy" / path
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(ValueError, match=f"must have {gone.name} in "):
        prepared(recipe, *options_of(recipe, tmp_path / "copy"))


def test_fleurs_and_mls_say_which_languages_they_have(prepared):
    with pytest.raises(ValueError, match="got ru; known: de en es fr it nl pl pt"):
        prepared("mls", "--langs", "pl ru")
    with pytest.raises(ValueError, match="got eo; known: af am ar"):
        prepared("fleurs", "--langs", "eo")


def test_fleurs_languages_have_one_name_each(local):
    fleurs = local("fleurs", "fleurs")
    assert len(fleurs.NAMES) == len(set(fleurs.NAMES)) == len(fleurs.LANGS) == 102
    names = {"zh": "cmn_hans_cn", "yue": "yue_hant_hk", "no": "nb_no", "es": "es_419"}
    assert names.items() <= fleurs.LANGS.items()


@pytest.mark.parametrize(
    ("text", "lang", "foreign"),
    [
        ("Добры дзень", "be", False),
        ("Добры дзень", "ca", True),
        ("NHKのニュース", "ja", False),
        ("OK", "ja", True),
        ("123, ¿?", "ru", False),
        ("Dobar dan", "sr", False),
        ("शून्य", "hi", False),
    ],
)
def test_text_in_another_script_is_found(local, text, lang, foreign):
    assert local("commonvoice", "writing").is_foreign(text, lang) == foreign


def test_scripts_are_listed_for_languages_that_are_known(local):
    """To us, or to FLEURS, but for a few that a newer corpus may bring."""
    from espnet_lora_experts.whisper import languages

    writing = local("commonvoice", "writing")
    known = set(languages.TABLE) | set(local("fleurs", "fleurs").LANGS)
    listed = {code for row in writing._ROWS for code in row[1:]}
    assert listed - known <= {"ab", "dv", "sah", "ti", "ug"}
