"""Tables in the memory of their files read as ESPnet's dictionaries do."""

import pickle

import pytest
from espnet2.fileio.read_text import read_2columns_text
from espnet2.train.dataset import ESPnetDataset

from espnet_lora_experts.plugin import tables
from espnet_lora_experts.plugin.tables import Table, compact

LINES = "b да нет\na  uno dos \nc\nd\tいち、に\r\ne\u3000x\nlast one"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(LINES.encode())
    return path


def test_reads_what_espnet_reads(path):
    theirs = read_2columns_text(path)
    ours = Table(path)
    assert dict(ours) == theirs and [*ours] == [*theirs] and len(ours) == len(theirs)
    assert [*ours.rows()] == [*theirs.items()]
    assert dict(pickle.loads(pickle.dumps(ours))) == theirs
    assert "x" not in ours and "" not in ours


def test_keys_of_one_hash_are_told_apart(path, monkeypatch):
    monkeypatch.setattr(tables, "_hash", lambda key: len(key))
    assert dict(Table(path)) == read_2columns_text(path)
    with pytest.raises(KeyError):
        Table(path)["x"]


def test_a_dataset_gives_the_same_from_tables(corpus):
    def dataset():
        kinds = {"wav.scp": "sound", "text": "text", "utt2lang": "text"}
        data = [(str(corpus.path / f), f, kind) for f, kind in kinds.items()]
        return ESPnetDataset(data, preprocess=lambda utt, data: data.pop("wav.scp"))

    whole, small = dataset(), compact(dataset())
    assert [*small] == [*whole] == [*corpus.utts]
    for name, loader in small.loader_dict.items():
        held = loader.loader.data if name == "wav.scp" else loader
        assert isinstance(held, Table), name
        for utt in corpus.utts:
            ours, theirs = loader[utt], whole.loader_dict[name][utt]
            assert (
                ours.tolist() == theirs.tolist()
                if name == "wav.scp"
                else ours == theirs
            )
