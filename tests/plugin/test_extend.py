"""A language more: what an extended system keeps of the old one until it learns."""

import pytest
import torch

from espnet_lora_experts.experts.bank import lora_config
from espnet_lora_experts.experts.store import save_expert
from espnet_lora_experts.plugin.task import LoraExpertsTask
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.systems import decode, encode

OLD, NEW = ["ru", "es"], ["es", "ja", "ru"]  # the added one comes between
UTTS = ["a1", "a2", "a5"]  # ru, es, ru
MOLE = {"merged_layers": 1, "pooling": "attentive", "combination": "factor"}
FIELDS = ("speech", "speech_lengths", "text", "text_lengths", "lang")


@pytest.fixture(scope="module")
def old(build, tmp_path_factory):
    """Folders of a MoLE and of a student of two languages, off their start."""
    folder = tmp_path_factory.mktemp("old")
    for kind, conf in (("mole", MOLE), ("distill", {}), ("multi", {})):
        build(kind, langs=OLD, **conf).export(folder / kind, {})
    return folder


@pytest.fixture
def extended(arguments, experts, old):
    """Builds a model of three languages from an old system."""

    def extended(kind, **conf):
        options = MOLE if kind == "mole" else {"r": 4, "interpolation_prob": 0.0}
        conf = {"extend": str(old / kind), "experts": experts, **options, **conf}
        args = arguments(model=f"lora_{kind}", model_conf={"languages": NEW, **conf})
        return LoraExpertsTask.build_model(args).eval()

    return extended


@torch.no_grad()
def outputs(model, given, routed=True):
    """Encoder's and decoder's outputs, the router's logits and the routes."""
    batch = model.batch(*(given[name] for name in FIELDS))
    route = None if routed else batch.langs
    encoded = encode(model.backbone, model.system, batch.mel_BTM, batch.frames_B, route)
    y_BUD = decode(model.backbone, model.system, encoded, batch.ids_BU)
    return encoded.hidden_BPD, y_BUD, encoded.lid_logits_BN, list(encoded.route or [])


def test_a_mole_with_no_share_is_the_old_one_bit_for_bit(build, extended, collate):
    a = outputs(build("mole", langs=OLD, **MOLE).eval(), collate(*UTTS))
    b = outputs(extended("mole", new_share=0), collate(*UTTS))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert torch.equal(a[2], b[2][:, [NEW.index(code) for code in OLD]])
    torch.testing.assert_close(b[2][:, NEW.index("ja")], a[2].mean(dim=1))
    assert a[3] == b[3] and set(a[3]) <= set(OLD)


def test_mixtures_without_a_share_never_move(extended, collate):
    model = extended("mole", new_share=0).train()
    loss, *_ = model(**collate("a1", "a3"))
    loss.backward()
    ja = NEW.index("ja")
    assert not model.system.fusion.V_IN.grad[:, ja].any()
    assert model.system.fusion.V_IN.grad.any()
    assert torch.isfinite(loss) and not model.system.fusion.alpha_IN[:, ja].any()


@pytest.mark.parametrize("share, expected", [(None, 1 / 3), (0.1, 0.1)])
def test_mixtures_keep_their_ratios(build, extended, share, expected):
    alpha_IM = build("mole", langs=OLD, **MOLE).system.fusion.alpha_IN
    alpha_IN = extended("mole", new_share=share).system.fusion.alpha_IN
    ru_es = alpha_IN[:, [NEW.index(code) for code in OLD]]
    torch.testing.assert_close(ru_es, (1 - expected) * alpha_IM)
    torch.testing.assert_close(alpha_IN[:, NEW.index("ja")], torch.full((6,), expected))


def test_the_added_class_learns_from_its_first_step(extended, collate):
    model = extended("mole").train()
    model(**collate("a3"))[0].backward()
    ja = NEW.index("ja")
    assert model.system.router.mlp[-1].weight.grad[ja].any()
    assert model.system.fusion.V_IN.grad[:, ja].all()


def test_a_student_starts_exactly_where_the_old_one_ended(build, extended, collate):
    model, wider = build("distill", langs=OLD).eval(), extended("distill")
    a, b = (outputs(m, collate(*UTTS), routed=False) for m in (model, wider))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    pairs = (dict(m.backbone.bank.parameters_of("student")) for m in (model, wider))
    old, new = pairs
    assert all(torch.equal(old[key], new[key]) for key in old) and len(old) == len(new)
    assert {n for n, p in wider.named_parameters() if p.requires_grad} == {
        n for n, _ in wider.named_parameters() if ".expert_student." in n
    }


def test_old_files_stay_as_they_are(extended, collate, old, tmp_path):
    files = [path for path in sorted(old.rglob("*")) if path.is_file()]
    before = [path.read_bytes() for path in files]
    for kind in ("mole", "distill"):
        model = extended(kind).train()
        model(**collate("a1", "a3"))[0].backward()
        model.export(tmp_path / kind, {})
    assert len(files) > 10 and [path.read_bytes() for path in files] == before


def retrained(bank, code, folder, r=2, **options):
    """Another expert of a language."""
    bank.add(code, lora_config(r, **options), seed=7)
    save_expert(bank, code, folder)
    return {code: str(folder)}


def test_experts_must_be_those_that_were_fused(extended, experts, folder_30s, tmp_path):
    bank = Backbone.from_pretrained(str(folder_30s)).bank
    changed = experts | retrained(bank, "es", tmp_path / "es")
    with pytest.raises(ValueError, match="that were fused in .*but es's is another"):
        extended("mole", experts=changed)


def test_an_expert_of_another_rank_cannot_join_a_mixture(
    extended, experts, folder_30s, collate, tmp_path
):
    bank = Backbone.from_pretrained(str(folder_30s)).bank
    changed = experts | retrained(bank, "ja", tmp_path / "ja", r=3)
    with pytest.raises(ValueError, match="one rank .*'ja': 3.*combination: delta"):
        extended("mole", experts=changed)(**collate("a1"))


def test_an_expert_of_more_matrices_cannot_join(
    build, extended, experts, folder_30s, tmp_path
):
    bank = Backbone.from_pretrained(str(folder_30s)).bank
    fewer = {}
    for code in OLD:
        fewer |= retrained(bank, code, tmp_path / code, target_modules=["q_proj"])
    build("mole", langs=OLD, experts=fewer, **MOLE).export(tmp_path / "mole", {})
    with pytest.raises(ValueError, match="must be in the 1 merged .* but are in 6"):
        extended("mole", extend=str(tmp_path / "mole"), experts=experts | fewer)


@pytest.mark.parametrize(
    "kind, conf, message",
    [
        ("mole", {"languages": OLD}, r"\['ru', 'es'\], and more, but got"),
        ("mole", {"languages": ["es", "ja"]}, r"and more, but got \['es', 'ja'\]"),
        ("distill", {"languages": OLD}, "and more, but got"),
        ("mole", {"languages": ["es", "ru", "xx"]}, "must be a code .*got 'xx'"),
        ("mole", {"merged_layers": 2}, "same options.*'merged_layers': 2.*has"),
        ("mole", {"combination": "delta"}, "same options.*delta"),
        ("mole", {"pooling": "mean"}, "same options.*'pooling': 'mean'"),
        ("mole", {"new_share": 1.0}, "below 1, but got 1.0"),
        ("distill", {"r": 3}, "student of r: 3, but .* has 4; give r: 4"),
        ("distill", {"lora_alpha": 8}, "student of lora_alpha: 8, but .* has 4"),
        ("distill", {"target_modules": ["q_proj"]}, "student of target_modules"),
    ],
)
def test_options_are_checked(extended, kind, conf, message):
    with pytest.raises(ValueError, match=message):
        extended(kind, **conf)


def test_the_old_system_is_checked(extended, old):
    with pytest.raises(FileNotFoundError, match="nowhere must be a system's folder"):
        extended("mole", extend="nowhere")
    with pytest.raises(ValueError, match="of type mole, but .* is of single"):
        extended("mole", extend=str(old / "distill"))
    with pytest.raises(ValueError, match="of type single, but .* is of mole"):
        extended("distill", extend=str(old / "mole"))


@pytest.mark.parametrize("kind", ["mole", "distill"])
def test_the_backbone_is_checked(arguments, old, other_folder, tmp_path, kind):
    bank = Backbone.from_pretrained(str(other_folder)).bank
    experts = {}  # which do not say what they were trained on
    for code in NEW:
        experts |= retrained(bank, code, tmp_path / code)
    conf = {"languages": NEW, "experts": experts, "extend": str(old / kind), "r": 4}
    if kind == "mole":
        conf = {**conf, **MOLE}
        del conf["r"]
    args = arguments(model=f"lora_{kind}", model_conf=conf, backbone=str(other_folder))
    with pytest.raises(ValueError, match="extend must be a system of backbone"):
        LoraExpertsTask.build_model(args)
