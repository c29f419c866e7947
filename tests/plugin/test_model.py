"""What each model trains, what it leaves alone, and what its loss is."""

from pathlib import Path

import pytest
import torch
import yaml

from espnet_lora_experts.experts.distill import js_divergence
from espnet_lora_experts.experts.layer import ExpertLinear
from espnet_lora_experts.plugin.task import LoraExpertsTask
from espnet_lora_experts.whisper.systems import Experts, decode, encode

ROOT = Path(__file__).resolve().parents[2]
FIELDS = ("speech", "speech_lengths", "text", "text_lengths", "lang")

KINDS = ["experts", "multi", "mole", "distill", "logits_only", "full"]
LANGS = ["es", "ja", "ru"]
UTTS = ["a1", "a2", "a3", "a4"]
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def step(arguments):
    """One step of AdamW, by the task's optimizer, with weight decay."""

    def step(model, batch):
        args = arguments(optim="adamw", optim_conf={"lr": 0.01, "weight_decay": 0.1})
        [optimizer] = LoraExpertsTask.build_optimizers(args, model)
        model(**batch)[0].backward()
        before = {n: p.detach().clone() for n, p in model.state().items()}
        optimizer.step()
        return {n for n, p in model.state().items() if not torch.equal(p, before[n])}

    return step


@pytest.fixture
def watched(build):
    """A model whose every tensor, frozen or not, can be listed."""

    def watched(kind, **conf):
        model = build(kind, **conf)
        model.state = lambda: (
            dict(model.named_parameters()) | dict(model.named_buffers())
        )
        return model

    return watched


def names(model, ending):
    return {n for n, _ in model.named_parameters() if ending(n)}


TRAINED = {
    "experts": lambda name: ".lora_" in name,
    "multi": lambda name: ".expert_multi." in name,
    "mole": lambda name: ".fusion." in name or ".router." in name,
    "distill": lambda name: ".expert_student." in name,
    "logits_only": lambda name: ".expert_student." in name,
    "full": lambda name: not name.endswith("encoder.embed_positions.weight"),
}


@every_kind
def test_step_moves_exactly_what_is_trained(watched, collate, step, kind):
    model = watched(kind)
    expected = names(model, TRAINED[kind])
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert expected and trained == expected
    assert step(model, collate(*UTTS)) == expected


def pairs(backbone, r):
    layers = [m for m in backbone.hf.modules() if isinstance(m, ExpertLinear)]
    return sum(r * (m.in_features + m.out_features) for m in layers)


@pytest.mark.parametrize(
    "kind, r, loras", [("experts", 2, 3), ("multi", 2, 1), ("distill", 4, 1)]
)
def test_number_of_trained_parameters(build, kind, r, loras):
    model = build(kind)
    layers = [m for m in model.backbone.hf.modules() if isinstance(m, ExpertLinear)]
    assert len(layers) == 2 * 6 + 2 * 10  # q k v out fc1 fc2, cross-attention too
    assert model.trained_params == loras * pairs(model.backbone, r)


@pytest.mark.parametrize("present, idle", [("a2", {"ja", "ru"}), ("a1", {"es", "ja"})])
def test_idle_expert_is_untouched_by_weight_decay(
    watched, collate, step, present, idle
):
    moved = step(watched("experts"), collate(present))
    assert {lang for lang in LANGS if any(f"expert_{lang}." in n for n in moved)} == (
        set(LANGS) - idle
    )


def test_one_expert_learns_the_same_alone_and_beside_others(build, collate, gradients):
    together, alone = build("experts"), build("experts", langs=["es"])
    alone.load_state_dict(
        {k: v for k, v in together.state_dict().items() if k in alone.state_dict()}
    )
    batch = collate("a2", "a4")
    a, b = (gradients(m, m(**batch)[0]) for m in (together, alone))
    assert all(torch.equal(a[name], b[name]) for name in b)


def test_shared_init_starts_experts_from_one_A(arguments):
    for shared, alike in ((True, True), (False, False)):
        conf = {"languages": ["es", "ru"], "r": 2, "shared_init": shared}
        model = LoraExpertsTask.build_model(arguments(model_conf=conf))
        bank = model.backbone.bank
        es, ru = (dict(bank.parameters_of(code)) for code in ("es", "ru"))
        same = {key: torch.equal(es[key], ru[key]) for key in es if "lora_A" in key}
        assert set(same.values()) == {alike}
        assert not any(es[key].any() for key in es if "lora_B" in key)


# MoLE


def test_mole_loss_is_the_mean_of_lid_and_asr(build, collate):
    _, stats, _ = build("mole")(**collate(*UTTS))
    mean = (stats["loss_lid"] + stats["loss_asr"]) / 2
    torch.testing.assert_close(stats["loss"], mean)


def test_mole_lid_accuracy_is_the_routers(build, collate):
    model = build("mole")
    with torch.no_grad():
        model.system.router.mlp[-1].weight.zero_()
        model.system.router.mlp[-1].bias.copy_(torch.tensor([0.0, 0.0, 9.0]))  # ru
    assert model(**collate("a1", "a5"))[1]["acc_lid"] == 1
    assert model(**collate("a1", "a2"))[1]["acc_lid"] == 0.5


@pytest.mark.parametrize(
    "merged, layers",
    [(1, 1), (2, 2), (0.5, 1), (0.75, 2), (0.01, 1), (1.0, 2), (2.0, 2)],
)
def test_mole_depth_is_a_number_or_a_share(build, merged, layers):
    model = build("mole", merged_layers=merged)
    assert model.system.merged_layers == layers
    assert len(model.system.fusion.V_IN) == 6 * layers


def test_best_mole_is_chosen_by_what_its_router_changes(build, collate, shake):
    """The criterion of the YAML; under the true language acc does not know it."""
    conf = yaml.safe_load((ROOT / "conf/train_mole.yaml").read_text("utf-8"))
    [(phase, name, _)] = conf["best_model_criterion"]
    model, batch = build("mole").eval(), collate(*UTTS)
    before = model(**batch)[1]
    shake(model.system.router.parameters(), 0)
    after = model(**batch)[1]
    assert phase == "valid" and after[name] != before[name]
    assert after["acc"] == before["acc"]


def test_mole_fusion_has_a_learning_rate_of_its_own(build, arguments):
    model = build("mole", fusion_lr_scale=10)
    args = arguments(optim="adamw", optim_conf={"lr": 0.01})
    [optimizer] = LoraExpertsTask.build_optimizers(args, model)
    router, fusion = optimizer.param_groups
    assert (router["lr"], fusion["lr"]) == (0.01, 0.1)
    assert fusion["params"] == list(model.system.fusion.parameters())
    both = {*router["params"], *fusion["params"]}
    assert both == {p for p in model.parameters() if p.requires_grad}


# distillation


def kd_terms(stats):
    return {k: float(v) for k, v in stats.items() if "_kd" in k or k == "loss_js"}


def copy_expert(bank, source, target):
    for layer in bank.layers.values():
        layer.set_factors(target, *layer.factors(source))


@pytest.mark.parametrize("prob", [0.0, 1.0])
@pytest.mark.parametrize("utt", ["a2", "a4"])  # with text and without
def test_distillation_is_exactly_zero_when_student_is_teacher(
    build, collate, prob, utt
):
    model = build("distill", langs=["es"], r=2, interpolation_prob=prob)
    assert min(kd_terms(model(**collate("a2"))[1]).values()) > 1e-5
    copy_expert(model.backbone.bank, "es", "student")
    loss, stats, _ = model(**collate(utt))
    assert set(kd_terms(stats).values()) == {0.0}
    assert torch.equal(loss[0], stats["loss_asr"][0])


def test_svd_start_of_one_expert_is_the_expert(arguments, collate, experts):
    """Rank 4 holds an expert of rank 2: no distance at step 0."""
    conf = {"languages": ["es"], "experts": experts, "r": 4}
    model = LoraExpertsTask.build_model(
        arguments(model="lora_distill", model_conf=conf)
    )
    assert max(kd_terms(model(**collate("a2"))[1]).values()) < 1e-9


def test_student_starts_from_the_experts_average(arguments, experts):
    for how in ("delta_svd", "factor_mean", "zero"):
        conf = {"languages": LANGS, "experts": experts, "r": 6, "student_init": how}
        model = LoraExpertsTask.build_model(
            arguments(model="lora_distill", model_conf=conf)
        )
        for layer in model.backbone.bank.layers.values():
            pairs = [layer.factors(lang) for lang in LANGS]
            mean_OD = sum(B @ A for A, B in pairs) / 3
            if how == "factor_mean":
                mean_OD = sum(B for _, B in pairs) @ sum(A for A, _ in pairs) / 9
            A, B = layer.factors("student")
            torch.testing.assert_close(
                B @ A, 0 * mean_OD if how == "zero" else mean_OD, atol=1e-5, rtol=1e-4
            )


def test_alpha_zero_is_the_pooled_loss(build, collate, gradients):
    student = build("distill", r=2, alpha=0.0)
    pooled = build("multi", r=2)
    ours, theirs = student.backbone.bank, pooled.backbone.bank
    for key, layer in ours.layers.items():
        theirs.layers[key].set_factors("multi", *layer.factors("student"))
    batch = collate(*UTTS)
    a, b = student(**batch)[0], pooled(**batch)[0]
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
    a, b = gradients(student, a), gradients(pooled, b)
    for name in b:
        mine = a[name.replace("expert_multi", "expert_student")]
        torch.testing.assert_close(mine, b[name], atol=1e-5, rtol=1e-4)


def test_distillation_loss_adds_up(build, collate):
    for kind, alpha in (("distill", 3.0), ("logits_only", 3.0)):
        _, stats, _ = build(kind, alpha=alpha)(**collate(*UTTS))
        cosine = [v for k, v in stats.items() if k.startswith("loss_kd_")]
        assert len(cosine) == 4  # encoder 0, 1 and decoder 0, 1
        m_terms = [*cosine, stats["loss_js"]]
        kd = stats["loss_js"] if kind == "logits_only" else sum(m_terms) / 5
        torch.testing.assert_close(stats["loss_kd"], kd)
        torch.testing.assert_close(stats["loss"], stats["loss_asr"] + alpha * kd)


@torch.no_grad()
def test_divergence_is_over_the_text_and_its_end(build, collate):
    """From the scores of all positions, against the experts: the prompt is left out."""
    model, given = build("distill").eval(), collate("a1", "a2")
    batch = model.batch(*(given[name] for name in FIELDS))
    scores = []
    for system in (model.teacher, model.system):
        encoded = encode(
            model.backbone, system, batch.mel_BTM, batch.frames_B, batch.langs
        )
        y_BUD = decode(model.backbone, system, encoded, batch.ids_BU)
        scores.append(model.backbone.logits(y_BUD))
    js_B = [
        js_divergence(t[at], s[at]).mean()
        for t, s, at in zip(*scores, batch.text_BU, strict=True)
    ]
    texts = given["text_lengths"][[1, 0]] - 3  # es before ru
    assert (batch.text_BU.sum(1) == texts).all()
    torch.testing.assert_close(model(**given)[1]["loss_js"].squeeze(), sum(js_B) / 2)


def test_teacher_runs_each_utterance_under_its_own_expert(build, collate):
    """The teacher's share of the loss changes with that expert alone."""
    model = build("distill")
    before = model(**collate("a1"))[1]
    for layer in model.backbone.bank.layers.values():
        layer.set_factors("es", *(0 * f for f in layer.factors("es")))
    assert kd_terms(model(**collate("a1"))[1]) == kd_terms(before)
    for layer in model.backbone.bank.layers.values():
        layer.set_factors("ru", *(0 * f for f in layer.factors("ru")))
    after = model(**collate("a1"))[1]
    assert after["loss_js"] != before["loss_js"]
    assert after["loss_asr"] == before["loss_asr"]


def test_interpolation_is_for_training(build, collate):
    always, never = build("distill", interpolation_prob=1.0), build("distill")
    batch = collate("a2")
    assert always(**batch)[0] != never(**batch)[0]
    assert torch.equal(always.eval()(**batch)[0], never.eval()(**batch)[0])


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_teacher_is_the_experts_whatever_the_student_does(build, collate, prob):
    model, given = build("distill", interpolation_prob=prob), collate(*UTTS)
    keys = ("speech", "speech_lengths", "text", "text_lengths", "lang")
    batch = model.batch(*(given[key] for key in keys))
    _, teacher_BUD, _ = model._lockstep(batch)
    whisper, system = model.backbone, Experts(LANGS)
    encoded = encode(whisper, system, batch.mel_BTM, batch.frames_B, batch.langs)
    alone_BUD = decode(whisper, system, encoded, batch.ids_BU)
    torch.testing.assert_close(teacher_BUD, alone_BUD, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "kind, conf, error, message",
    [
        ("distill", {"student_init": "mean"}, ValueError, "one of .*got 'mean'"),
        (
            "mole",
            {"experts": {"es": "x"}},
            ValueError,
            r"lacks \['ja', 'ru'\].*stage 5",
        ),
        ("distill", {"experts": {}}, ValueError, r"lacks \['es', 'ja', 'ru'\]"),
        ("mole", {"merged_layers": 3}, ValueError, "1 to 2 .*got 3"),
        ("mole", {"merged_layers": 1.5}, ValueError, "whole number .*got 1.5"),
        ("mole", {"merged_layers": -0.5}, ValueError, "whole number .*got -0.5"),
        (
            "mole",
            {"experts": dict.fromkeys(LANGS, "nowhere")},
            FileNotFoundError,
            "nowhere must be a PEFT adapter folder",
        ),
    ],
)
def test_options_are_checked(build, kind, conf, error, message):
    with pytest.raises(error, match=message):
        build(kind, **conf)
