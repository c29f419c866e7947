"""An export takes a new place, or that of an earlier export, and no other."""

import pytest

from espnet_lora_experts.whisper.export import places


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def check(out, force, is_file):
    places.check(out, out.parent / "exp/kd", force, is_file)


def held(path):
    return {
        p.relative_to(path): p.is_file() and p.read_bytes() for p in path.rglob("*")
    }


@pytest.mark.parametrize("is_file", [False, True])
def test_a_new_place_is_fine(out, is_file):
    check(out / "deep", force=False, is_file=is_file)
    assert not out.exists()


def test_an_empty_folder_is_fine(out):
    out.mkdir()
    check(out, force=False, is_file=False)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_no_export_is_refused(out, force):
    out.mkdir()
    (out / "system.json").write_text("trained for weeks")
    with pytest.raises(ValueError, match="out must be (new|an earlier export)"):
        check(out, force, is_file=False)
    assert (out / "system.json").read_text() == "trained for weeks"


def test_an_export_is_replaced_when_forced(out):
    out.mkdir()
    (out / places.MARK).write_text("{}")
    check(out, force=True, is_file=False)
    with pytest.raises(ValueError, match="out must be new, but exists; .*--force"):
        check(out, force=False, is_file=False)


def test_of_files_only_ggml_s_are_replaced(out):
    out.write_bytes(b"lmgg and more")
    check(out, force=True, is_file=True)
    with pytest.raises(ValueError, match="out must be new"):
        check(out, force=False, is_file=True)
    out.write_bytes(b"precious")
    with pytest.raises(ValueError, match="out must be an earlier .*is no ggml file"):
        check(out, force=True, is_file=True)


def test_the_wrong_kind_is_named(out):
    out.mkdir()
    with pytest.raises(ValueError, match="must be a file, but is a folder; give .*bin"):
        check(out, force=True, is_file=True)
    (out / "file").touch()
    with pytest.raises(ValueError, match="must lie in a folder, but .*file is a file"):
        check(out / "file" / "x", force=False, is_file=False)


@pytest.mark.parametrize("name", [".", "exp", "exp/kd", "link"])
def test_the_system_itself_is_never_replaced(tmp_path, name):
    source = tmp_path / "exp" / "kd"
    source.mkdir(parents=True)
    (tmp_path / "link").symlink_to(source)
    for folder in (source, source.parent, tmp_path):
        (folder / places.MARK).write_text("{}")
    with pytest.raises(ValueError, match="must be another place than the system"):
        places.check(tmp_path / name, source, force=True, is_file=False)
    places.check(source / "export", source, force=False, is_file=False)
