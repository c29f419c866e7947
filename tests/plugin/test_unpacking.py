"""Zips of strangers, which ESPnet would unpack as they say."""

import random
import zipfile

import pytest

from espnet_lora_experts.plugin.unpacking import unpack_checked

META = "files: {asr_model_file: a/1.pth}\nyaml_files: {asr_train_config: a/c.yaml}\n"
MEMBERS = (("meta.yaml", META), ("a/c.yaml", "seed: 1\n"), ("a/1.pth", "abc"))


@pytest.fixture
def packed(tmp_path):
    """Writes a zip of members, the good ones by default."""

    def write(*members, method=zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "model.zip", "w", method) as archive:
            for name, content in members or MEMBERS:
                archive.writestr(name, content)
        return tmp_path / "model.zip"

    return write


def refused(path, why):
    folder = path.parent / "out"
    with pytest.raises(ValueError, match=why) as caught:
        unpack_checked(path, folder)
    assert str(path) in str(caught.value) and not [*folder.glob("**/*.pth")]


def test_a_whole_model_is_unpacked(packed, tmp_path):
    found = unpack_checked(packed(), tmp_path / "out")
    assert found["asr_model_file"] == str(tmp_path / "out/a/1.pth")
    assert (tmp_path / "out/a/1.pth").read_text() == "abc"


def test_another_description_before_the_checked_one_is_not_followed(packed):
    other = "files: {asr_model_file: /etc/hostname}\nyaml_files: {}\n"
    refused(packed(("x/meta.yaml", other), *MEMBERS), "instead of one meta.yaml")
    with pytest.warns(UserWarning, match="Duplicate"):
        path = packed(("meta.yaml", other), *MEMBERS)
    refused(path, "instead of one meta.yaml")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("a: b: c\n", "mapping values are not allowed"),
        ("a: \x04\n", "control characters are not allowed"),
        ("- 1\n", "a list instead of"),
        ("a: &x [1]\nb: *x\n", "write out what it stands for"),
        (b"\xff: 1\n", "codec can't decode"),
    ],
)
def test_a_broken_config_inside_is_refused(packed, config, why):
    refused(packed(MEMBERS[0], ("a/c.yaml", config), MEMBERS[2]), why)


@pytest.mark.parametrize(
    "meta",
    [
        META.replace("a/1.pth", "3"),
        META.replace("a/1.pth", "../1.pth"),
        META.replace("{asr_train_config: a/c.yaml}", "[a/c.yaml]"),
        META.partition("yaml_files")[0],
    ],
)
def test_a_description_names_files_inside(packed, meta):
    refused(packed(("meta.yaml", meta), *MEMBERS[1:], ("3", "")), "in its meta.yaml")


def test_no_more_files_than_espnet_packs(packed):
    refused(packed(*MEMBERS, *((f"{i}", "") for i in range(500))), "503 files, more")


def test_packing_that_reserves_what_it_is_told_to_is_refused(packed):
    refused(packed(method=zipfile.ZIP_LZMA), "neither stored nor deflated")


def test_damage_anywhere_is_told_with_the_zips_name(packed, tmp_path):
    whole, draw = bytearray(packed().read_bytes()), random.Random(0)
    errors = 0
    for number in range(len(whole)):
        broken = bytearray(whole)
        broken[number] ^= 1 << draw.randrange(8)
        (tmp_path / "broken.zip").write_bytes(broken)
        try:
            unpack_checked(tmp_path / "broken.zip", tmp_path / str(number))
        except ValueError as error:
            assert str(tmp_path / "broken.zip") in str(error)
            errors += 1
    assert errors > len(whole) / 2
