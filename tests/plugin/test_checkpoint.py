"""Checkpoints: trained tensors only, bound to a backbone, never loaded in part."""

import pytest
import torch
import yaml

from espnet_lora_experts.plugin.checkpoint import HASH_KEY
from espnet_lora_experts.plugin.task import LoraExpertsTask

KINDS = ["experts", "multi", "mole", "distill", "full"]
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_holds_the_trained_tensors_and_the_hash(build, kind):
    model = build(kind)
    state = model.state_dict()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    statistics = {f"encoder.system.{n}" for n, _ in model.system.named_buffers()}
    assert set(state) == trained | statistics | {HASH_KEY}
    assert bool(statistics) == (kind == "mole")
    assert all(type(value) is torch.Tensor for value in state.values())
    assert bytes(state[HASH_KEY].tolist()).hex() == model.backbone.sha256


@every_kind
def test_survives_a_file(build, collate, tmp_path, kind):
    model, other, batch = build(kind), build(kind, seed=1), collate("a1", "a2")
    model(**batch)  # a step of training: statistics too
    model, other = model.eval(), other.eval()
    torch.save(model.state_dict(), tmp_path / "1epoch.pth")
    assert other(**batch)[0] != model(**batch)[0]
    other.load_state_dict(torch.load(tmp_path / "1epoch.pth", weights_only=True))
    assert torch.equal(other(**batch)[0], model(**batch)[0])


def lose(state):
    del state[next(iter(state))]


def add(state):
    state["encoder.unknown"] = torch.zeros(1)


def reshape(state):
    name = next(iter(state))
    state[name] = state[name][:1]


def lose_all(state):
    for name in set(state) - {HASH_KEY}:
        del state[name]


BROKEN = [
    (lose, "1 are missing, unknown or of another shape: .*same model_conf"),
    (add, "1 are missing, unknown or of another shape: .*encoder.unknown"),
    (reshape, "1 are missing, unknown or of another shape"),
    (lose_all, "trained tensors, but"),
    (lambda state: state.pop(HASH_KEY), "must name its backbone"),
    (lambda state: state[HASH_KEY].add_(1), "must be of backbone .*trained on"),
]


@pytest.mark.parametrize("spoil, message", BROKEN)
@pytest.mark.parametrize("strict", [True, False])  # ESPnet loads with strict=False
def test_loads_all_or_nothing(build, spoil, message, strict):
    model, state = build("experts"), build("experts", seed=1).state_dict()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    spoil(state)
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(state, strict=strict)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


@pytest.fixture
def trained(arguments, build, tmp_path):
    """What ESPnet's trainer leaves: config.yaml and a checkpoint."""

    def trained(kind):
        model = build(kind)
        torch.save(model.state_dict(), tmp_path / "model.pth")
        name, conf = {
            "experts": ("lora_expert", {"languages": ["es", "ja", "ru"], "r": 2}),
            "full": ("whisper_full", {"languages": ["es", "ja", "ru"]}),
        }[kind]
        args = arguments(model=name, model_conf=conf)
        LoraExpertsTask.build_model(args)  # it writes the backbone into each conf
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(vars(args)))
        return model, tmp_path / "model.pth"

    return trained


@pytest.mark.parametrize("kind", ["experts", "full"])
def test_espnet_builds_the_model_from_its_files(trained, collate, kind):
    model, path = trained(kind)
    loaded, args = LoraExpertsTask.build_model_from_file(model_file=path)
    batch = collate("a1", "a2")
    assert torch.equal(loaded(**batch)[0], model(**batch)[0])
    assert args.encoder_conf["backbone"] == args.backbone


@pytest.mark.parametrize("spoil, message", BROKEN)
def test_espnet_never_gets_the_base_model_in_silence(trained, spoil, message):
    model, path = trained("experts")
    state = torch.load(path)
    spoil(state)
    torch.save(state, path)
    with pytest.raises(ValueError, match=message):
        LoraExpertsTask.build_model_from_file(model_file=path)


def test_espnet_never_takes_another_backbone(trained, other_folder):
    _, path = trained("experts")
    config = path.with_name("config.yaml")
    args = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**args, "backbone": str(other_folder)}))
    with pytest.raises(ValueError, match="must be of backbone"):
        LoraExpertsTask.build_model_from_file(model_file=path)
