"""Files of torch.save from strangers."""

import io
import os
import pickle
import zipfile

import pytest
import torch

from espnet_lora_experts.experts.checkpoint import check_tensors, load_tensors


def save(path, state):
    torch.save(state, path)
    return path


def rewritten(path, edit=lambda name, content: content, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, edit(name, content))
    return path


class Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_tensors_come_back(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"a": whole, "view": whole[:, 1:3], "b": torch.ones(2, dtype=torch.uint8)}
    state["p"] = torch.nn.Parameter(torch.ones(2).half())
    loaded = load_tensors(save(tmp_path / "x.pth", state))
    assert {*loaded} == {*state}
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"x": Runs()}, "posix.mkdir"),
        ({"x": 1}, "int at 'x'"),
        ([torch.ones(1)], "list"),
        ({1: torch.ones(1)}, "_Tensor at 1"),
        ({"x": bytearray(3)}, "bytearray"),
        ({"x": torch.ones(1).expand(10**12)}, "a tensor of .1000000000000,. in 1 "),
    ],
)
def test_what_is_no_named_tensor_is_refused(tmp_path, monkeypatch, state, reason):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "x.pth", state)
    with pytest.raises(ValueError, match=f"^{path} must hold tensors .*{reason}"):
        load_tensors(path)
    assert not (tmp_path / "ran").exists()


def test_a_storage_is_as_large_as_its_record(tmp_path):
    path = save(tmp_path / "x.pth", {"x": torch.ones(40)})
    rewritten(path, lambda name, x: x[:-4] if name.endswith("data/0") else x)
    with pytest.raises(ValueError, match="storage 0 of 40 elements"):
        check_tensors(path)


def test_a_compressed_file_is_refused(tmp_path):
    path = save(tmp_path / "x.pth", {"x": torch.zeros(10**5)})
    rewritten(path, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="is compressed"):
        check_tensors(path)


def test_a_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/text", "es")
    with pytest.raises(ValueError, match="ValueError: no data.pkl"):
        check_tensors(tmp_path / "x.pth")


def test_the_old_format_is_refused(tmp_path):
    torch.save(
        {"x": torch.ones(1)}, tmp_path / "x", _use_new_zipfile_serialization=False
    )
    with pytest.raises(ValueError, match="BadZipFile"):
        check_tensors(tmp_path / "x")


@pytest.mark.parametrize(
    "index",
    [
        b"\x80\x02r\xff\xff\xff\x7f.",  # a memo of 2^31 places
        b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",  # a bytearray of 1 TiB
        pickle.dumps({}, 4),
        b"",
    ],
)
def test_a_pickle_that_torch_does_not_write_is_refused(tmp_path, index):
    path = save(tmp_path / "x.pth", {"x": torch.ones(1)})
    rewritten(path, lambda name, x: index if name.endswith("data.pkl") else x)
    with pytest.raises(ValueError, match="must hold tensors"):
        check_tensors(path)


def test_a_file_that_only_torch_cannot_read_is_named(tmp_path):
    path = save(tmp_path / "x.pth", {"x": torch.ones(1)})
    rewritten(path, lambda name, x: b"x" if name.endswith("version") else x)
    with pytest.raises(ValueError, match=f"^{path} must be a whole file"):
        load_tensors(path)
    assert io.BytesIO(path.read_bytes()).read(2) == b"PK"
