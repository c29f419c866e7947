"""What a folder says it is: read whole, written whole, or an error with its name."""

import json

import pytest

from espnet_lora_experts.whisper.description import (
    DESCRIPTION,
    read_description,
    read_json,
    write_description,
    write_json,
)

BACKBONE = {"name": "a", "sha256": "b"}
WHAT = {"type": "full", "languages": ["es"], "backbone": BACKBONE}


def test_description_comes_back_from_a_folder_that_was_not_there(tmp_path):
    write_description(tmp_path / "exp" / "full", WHAT | {"steps": 7})
    assert read_description(tmp_path / "exp" / "full") == WHAT | {"steps": 7}
    assert [p.name for p in (tmp_path / "exp" / "full").iterdir()] == [DESCRIPTION]


def test_folder_without_a_description_names_the_fix(tmp_path):
    with pytest.raises(FileNotFoundError, match="no system.json; a finished training"):
        read_description(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"type": "ful', b"\xff{}"])
def test_broken_json_is_named(tmp_path, content):
    path = tmp_path / DESCRIPTION
    path.write_bytes(content)
    for read, place in (read_description, tmp_path), (read_json, path):
        with pytest.raises(ValueError, match="system.json must be whole JSON.* again"):
            read(place)


@pytest.mark.parametrize("key", WHAT)
def test_what_every_system_says_is_required(tmp_path, key):
    write_description(tmp_path, {k: v for k, v in WHAT.items() if k != key})
    with pytest.raises(ValueError, match=f"system.json must say its {key}, but does"):
        read_description(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"languages": "es"}, "languages in .* must be a list of text, but got 'es'"),
        ({"languages": [7]}, r"languages in .* must be a list of text, but got \[7\]"),
        ({"backbone": "tiny"}, "backbone in .* must be a dict of text, but got 'tiny'"),
        ({"backbone": {"name": "a"}}, "backbone in .* must have a name and a sha256"),
        ({"experts": ["es"]}, "experts in .* must be a dict of text"),
        ({"experts": {"es": None}}, "experts in .* must be a dict of text"),
    ],
)
def test_what_is_not_as_every_system_writes_it_is_named(tmp_path, changes, message):
    write_description(tmp_path, WHAT | changes)
    with pytest.raises(ValueError, match=message):
        read_description(tmp_path)


def test_json_is_the_old_or_the_new_one(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"text": "привет"})
    assert "привет" in path.read_text(encoding="utf-8")
    with pytest.raises(TypeError):
        write_json(path, {"text": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"text": "привет"}
    assert list(tmp_path.iterdir()) == [path]


def test_equal_json_keeps_its_date(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, WHAT)
    before = path.stat()
    write_json(path, WHAT)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
    )
    write_json(path, WHAT | {"steps": 1})
    assert path.stat().st_ino != before.st_ino
