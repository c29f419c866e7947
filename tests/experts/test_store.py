"""Experts go to and come from plain PEFT, and what cannot be one is a clear error."""

import json
import os

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from espnet_lora_experts.experts.bank import lora_config
from espnet_lora_experts.experts.gate import everywhere
from espnet_lora_experts.experts.store import (
    PICKLE,
    WEIGHTS,
    load_expert,
    read_tensors,
    save_expert,
    write_tensors,
)
from espnet_lora_experts.whisper.backbone import Backbone

TARGETS = ["first", "second"]
CONFIG = "adapter_config.json"
HASH = "a" * 64


@pytest.fixture
def folder(bank, tmp_path):
    save_expert(bank, "es", tmp_path / "es", "tiny", {"backbone_sha256": HASH})
    return tmp_path / "es"


def logits(whisper):
    mel_BMT = torch.randn(2, 80, 200, generator=torch.Generator().manual_seed(0))
    ids_BU = torch.tensor([[257, 260, 264, 268, 3], [257, 261, 264, 268, 9]])
    with torch.no_grad():
        return whisper(input_features=mel_BMT, decoder_input_ids=ids_BU).logits


def gated_logits(backbone, name):
    with backbone.bank.using(everywhere(name)):
        return logits(backbone.hf)


def test_our_folder_loads_in_plain_peft(trio, make_whisper, tmp_path):
    save_expert(trio.bank, "ru", tmp_path / "ru")
    plain = PeftModel.from_pretrained(make_whisper(), str(tmp_path / "ru"))
    torch.testing.assert_close(logits(plain.eval()), gated_logits(trio, "ru"))
    assert not torch.allclose(logits(make_whisper()), gated_logits(trio, "ru"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lora_alpha": 16, "use_rslora": True},
        {"target_modules": ["q_proj", "v_proj"], "lora_alpha": 32},
        {"target_modules": r".*decoder.*\.fc1"},
        {"target_modules": "all-linear"},
        {"target_modules": ["model.encoder.layers.0.fc1", "layers.1.fc2"]},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"exclude_modules": r".*encoder_attn.*"},
        {"rank_pattern": {"fc1": 3}, "alpha_pattern": {"q_proj": 9}},
        {
            "rank_pattern": {r"^model\.decoder.*fc1": 2},
            "alpha_pattern": {r"layers\.1\..*q_proj": 3},
            "use_rslora": True,
        },
        {"task_type": "SEQ_2_SEQ_LM", "lora_dropout": 0.5},
        {"fan_in_fan_out": True},
        {"init_lora_weights": "gaussian"},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_pefts_folder_loads_here(make_whisper, tmp_path, options):
    plain = trained_by_peft(make_whisper(), **options)
    plain.save_pretrained(tmp_path)
    backbone = Backbone(make_whisper(), sha256=HASH)
    load_expert(backbone.bank, "any", tmp_path, HASH)
    expected = logits(plain.base_model)  # with a task_type, plain is for text only
    torch.testing.assert_close(gated_logits(backbone, "any"), expected)
    assert not torch.allclose(logits(make_whisper()), expected)


def trained_by_peft(whisper, **options):
    """A LoRA after a few steps of plain PEFT on random speech."""
    config = {"r": 4, "target_modules": ["q_proj", "out_proj", "fc1"]}
    config |= {"lora_dropout": 0.1} | options
    torch.manual_seed(0)
    plain = get_peft_model(whisper, LoraConfig(**config)).train()
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.1)
    mel_BMT, ids_BU = torch.randn(2, 80, 200), torch.randint(256, (2, 6))
    for _ in range(3):
        plain.base_model(input_features=mel_BMT, labels=ids_BU).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return plain.eval()


def test_all_linear_that_was_never_resolved_loads_beside_others(
    trio, make_whisper, tmp_path
):
    """PEFT writes the layers' names there, a config by hand may not."""
    plain = trained_by_peft(make_whisper(), target_modules="all-linear")
    plain.save_pretrained(tmp_path)
    edit_config(target_modules="all-linear")(tmp_path)
    load_expert(trio.bank, "any", tmp_path)
    torch.testing.assert_close(gated_logits(trio, "any"), logits(plain))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_load(make_whisper, tmp_path, dtype):
    """As adapters of a quantized or half precision backbone are saved."""
    plain = trained_by_peft(make_whisper())
    plain.save_pretrained(tmp_path)
    tensors = {key: x.to(dtype) for key, x in load_file(tmp_path / WEIGHTS).items()}
    save_file(tensors, tmp_path / WEIGHTS)
    backbone = Backbone(make_whisper())
    load_expert(backbone.bank, "any", tmp_path)
    for key, parameter in backbone.bank.parameters_of("any"):
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, tensors[f"base_model.model.{key}"].float())


def test_keys_without_pefts_prefix_load(make_whisper, tmp_path):
    plain = trained_by_peft(make_whisper())
    plain.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    bare = {key.removeprefix("base_model.model."): x for key, x in tensors.items()}
    save_file(bare, tmp_path / WEIGHTS)
    backbone = Backbone(make_whisper())
    load_expert(backbone.bank, "any", tmp_path)
    torch.testing.assert_close(gated_logits(backbone, "any"), logits(plain))


def test_a_pickle_of_older_peft_loads_and_runs_no_code(make_whisper, tmp_path):
    plain = trained_by_peft(make_whisper())
    plain.save_pretrained(tmp_path, safe_serialization=False)
    assert not (tmp_path / WEIGHTS).exists()
    backbone = Backbone(make_whisper())
    load_expert(backbone.bank, "any", tmp_path)
    torch.testing.assert_close(gated_logits(backbone, "any"), logits(plain))
    torch.save({"x": Evil(tmp_path / "ran")}, tmp_path / PICKLE)
    with pytest.raises(ValueError, match=f"^{tmp_path / PICKLE} must hold tensors and"):
        load_expert(backbone.bank, "evil", tmp_path)
    assert not (tmp_path / "ran").exists()
    assert backbone.bank.names == ["any"]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 32}, r"size, but .* is \(4, 32\) where the layer is 16 wide; "),
        ({"encoder_ffn_dim": 48}, r"fc1.lora_B.weight is \(48, 4\) where .* 24 wide; "),
        ({"decoder_layers": 3}, r"LoRA, but lacks nothing and has besides .*layers\.2"),
        (
            {"encoder_layers": 1},
            r"LoRA, but lacks .*encoder\.layers\.1.* besides nothing",
        ),
    ],
    ids=lambda changes: " ".join(changes) if isinstance(changes, dict) else "",
)
def test_an_expert_of_another_size_names_what_it_was_trained_on(
    trio, make_whisper, tmp_path, changes, message
):
    plain = trained_by_peft(make_whisper(**changes))
    plain.save_pretrained(tmp_path)
    edit_config(base_model_name_or_path="openai/whisper-small")(tmp_path)
    with pytest.raises(ValueError, match=f"{message}.*trained on openai/whisper-small"):
        load_expert(trio.bank, "any", tmp_path)
    assert trio.bank.names == ["es", "ru", "ja"]


def test_two_experts_of_one_name_are_an_error(bank, folder):
    with pytest.raises(ValueError, match=r"must be new, but got 'es'; has: \['es'"):
        load_expert(bank, "es", folder)


def test_saving_again_keeps_the_readme(bank, folder):
    (folder / "README.md").write_text("mine")
    (folder / "old.txt").write_text("old")
    save_expert(bank, "ru", folder)
    assert (folder / "README.md").read_text() == "mine"
    assert not (folder / "old.txt").exists()


def test_saved_and_loaded_is_the_same_bits(bank, folder):
    load_expert(bank, "again", folder, HASH)
    for (_, saved), (_, loaded) in zip(
        bank.parameters_of("es"), bank.parameters_of("again"), strict=True
    ):
        assert torch.equal(saved, loaded)
    assert not any(p.requires_grad for p in bank.model.parameters())
    assert json.loads((folder / CONFIG).read_text())["base_model_name_or_path"] == (
        "tiny"
    )


@pytest.fixture(params=[0o022, 0o027, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_the_umask_says_who_may_read_the_folder(umask, folder):
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {0o666 & ~umask}


def test_tensors_are_the_old_or_the_new_ones(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.ones(2, 3).T}, {"of": "test"})
    with pytest.raises(TypeError):
        write_tensors(path, {"x": torch.zeros(2)}, {"of": 7})
    tensors, metadata = read_tensors(path)
    assert torch.equal(tensors["x"], torch.ones(3, 2))
    assert metadata == {"of": "test", "format": "pt"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100])
def test_what_is_no_safetensors_file_is_named(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.safetensors must be a whole .* again"):
        read_tensors(path)


@pytest.mark.parametrize("hashes", [(None, HASH), (HASH, None), (HASH, HASH)])
def test_hash_is_checked_where_both_sides_have_one(bank, tmp_path, hashes):
    written, own = hashes
    metadata = {"backbone_sha256": written} if written else {}
    save_expert(bank, "es", tmp_path / "es", metadata=metadata)
    load_expert(bank, "again", tmp_path / "es", own)
    assert "again" in bank.names


def edit_config(**changes):
    def edit(folder):
        content = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(content | changes))

    return edit


def edit_weights(change):
    def edit(folder):
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return edit


def truncate(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


FIRST_B = "base_model.model.first.lora_B.weight"
BROKEN = {
    "no folder": (
        lambda f: [p.unlink() for p in f.iterdir()] and f.rmdir(),
        FileNotFoundError,
        "es must be a PEFT adapter folder, but has no adapter_config.json",
    ),
    "no weights": (
        lambda f: (f / WEIGHTS).unlink(),
        FileNotFoundError,
        "es/adapter_model.safetensors must exist",
    ),
    "truncated weights": (
        truncate,
        ValueError,
        "adapter_model.safetensors must be a whole safetensors file",
    ),
    "broken config": (
        lambda f: (f / CONFIG).write_text('{"r": '),
        ValueError,
        "es/adapter_config.json must be PEFT's LoRA config: Expecting value",
    ),
    "no LoRA": (
        lambda f: IA3Config(target_modules=TARGETS).save_pretrained(str(f)),
        ValueError,
        "es/adapter_config.json must be of a LoRA, but got .*IA3",
    ),
    "wrong rank": (
        edit_config(r=5),
        ValueError,
        r"es must have weights of .*'s rank 5, but has those of \[2\]",
    ),
    "missing targets": (
        edit_config(target_modules=["first"]),
        ValueError,
        "lacks nothing and has besides second.lora_A.weight, second.lora_B.weight",
    ),
    "foreign targets": (
        edit_config(target_modules=["third"]),
        ValueError,
        "'new' cannot be added: .*third",
    ),
    "targets of no kind": (
        edit_config(exclude_modules=float("nan")),
        ValueError,
        "es/adapter_config.json: layers must be names, but got nan",
    ),
    "targets that are 0": (
        edit_config(target_modules=0),
        ValueError,
        "es/adapter_config.json: layers must be names, but got 0",
    ),
    "dropout of no kind": (
        edit_config(lora_dropout=None),
        ValueError,
        "es/adapter_config.json: lora_dropout must be 0 to 1, got None",
    ),
    "missing key": (
        edit_weights(lambda tensors: tensors.pop(FIRST_B)),
        ValueError,
        "lacks first.lora_B.weight and has besides nothing",
    ),
    "unexpected key": (
        edit_weights(lambda tensors: tensors.update(extra=torch.ones(1))),
        ValueError,
        "lacks nothing and has besides extra",
    ),
    "unknown method": (
        edit_config(peft_type="NEW"),
        ValueError,
        "es/adapter_config.json must be PEFT's LoRA config: 'NEW'",
    ),
    "DoRA": (edit_config(use_dora=True), ValueError, "es .*but uses DoRA"),
    "modules_to_save": (
        edit_config(modules_to_save=["second"]),
        ValueError,
        "es .*but uses modules_to_save",
    ),
    "bias in B": (edit_config(lora_bias=True), ValueError, "es .*but uses a bias in B"),
    "bias": (edit_config(bias="all"), ValueError, "es must have bias: none.*'all'"),
    "activated LoRA": (
        edit_config(alora_invocation_tokens=[1]),
        ValueError,
        "es .*but uses activated LoRA",
    ),
    "parameters": (
        edit_config(target_parameters=["first.weight"]),
        ValueError,
        "es .*but uses target_parameters",
    ),
    "changed base": (
        edit_config(init_lora_weights="pissa"),
        ValueError,
        "es must run on an unchanged backbone.*init_lora_weights: pissa",
    ),
}


def outputs(bank, x):
    return torch.stack([under(bank, everywhere(name), x) for name in bank.names])


def under(bank, gate, x):
    with bank.using(gate):
        return bank.model(x)


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_expert_is_named_and_the_bank_unchanged(bank, folder, x, case):
    damage, error, message = BROKEN[case]
    damage(folder)
    before = list(bank.model.named_parameters()), bank.names, outputs(bank, x)
    with pytest.raises(error, match=message):
        load_expert(bank, "new", folder, HASH)
    after = list(bank.model.named_parameters()), bank.names, outputs(bank, x)
    assert [(key, id(p)) for key, p in before[0]] == [(k, id(p)) for k, p in after[0]]
    assert not any(p.requires_grad for _, p in after[0])
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])
    bank.add("new", lora_config(2, target_modules=TARGETS))


@pytest.mark.parametrize("held", [[], ["es"]], ids=["first", "second"])
@pytest.mark.parametrize(
    "targets, named",
    [
        (["q_proj", "proj_out"], "proj_out"),
        (r".*\.fc1|proj_out", "proj_out"),
        (["fc1", "embed_tokens"], "model.decoder.embed_tokens"),
        (["fc1", "conv1"], "model.encoder.conv1"),
    ],
)
def test_target_without_a_gate_is_named(
    backbone, make_whisper, add_random, tmp_path, targets, named, held
):
    """It would be ignored, or change the embedding with the output."""
    plain = get_peft_model(make_whisper(), LoraConfig(r=2, target_modules=targets))
    plain.save_pretrained(tmp_path / "ru")
    add_random(backbone.bank, held)
    before = [name for name, _ in backbone.hf.named_modules()]
    with pytest.raises(ValueError, match=f"ru must target .* but got {named}; train"):
        load_expert(backbone.bank, "ru", tmp_path / "ru")
    assert [name for name, _ in backbone.hf.named_modules()] == before
    assert backbone.bank.names == held


def test_regex_that_also_matches_inside_of_experts_loads(trio, make_whisper, tmp_path):
    config = LoraConfig(r=2, target_modules=r".*decoder.*\.fc1.*")
    get_peft_model(make_whisper(), config).save_pretrained(tmp_path)
    load_expert(trio.bank, "new", tmp_path)
    keys = {key.rsplit(".lora")[0] for key, _ in trio.bank.parameters_of("new")}
    assert keys == {f"model.decoder.layers.{i}.fc1" for i in range(2)}


def test_other_backbone_is_named(bank, folder):
    with pytest.raises(ValueError, match=f"backbone {'b' * 12},.*on {'a' * 12};"):
        load_expert(bank, "new", folder, "b" * 64)
    assert bank.names == ["es", "ru", "ja"]


def test_unknown_expert_is_not_saved(bank, tmp_path):
    with pytest.raises(ValueError, match=r"but got \['fr'\]"):
        save_expert(bank, "fr", tmp_path / "fr")
    assert list(tmp_path.iterdir()) == []
