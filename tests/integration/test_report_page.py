"""The report in a real Chromium: drawn, quiet, in both themes, on a phone, offline."""

import numpy as np
import pytest

from espnet_lora_experts.report import results
from espnet_lora_experts.report.page.models import Inside, States
from espnet_lora_experts.report.page.render import render
from espnet_lora_experts.report.page.sources import Curve
from espnet_lora_experts.report.page.worst import as_ogg, worst
from espnet_lora_experts.report.results import Decoded, System

pytestmark = pytest.mark.integration

LANGS = ["es", "fr", "ro", "ru", "zh"]
SYSTEMS = "vanilla mono two_pass multi mole kd kd_logits_only full@30s".split()
PHONE = {"width": 360, "height": 780}
HOSTILE = "</script><script>hacked = 1</script><img src=x onerror='hacked = 1'>"
KEYS = [
    f"model.{stack}.layers.{layer}.{matrix}"
    for stack in ("encoder", "decoder")
    for layer in range(3)
    for matrix in ("self_attn.q_proj", "fc1")
]


def scored_and_decoded(rng):
    """Random errors of every system in every mode."""
    langs = [lang for lang in LANGS for _ in range(8)]
    references = [f"uno dos tres cuatro {n}" for n in range(len(langs))]
    systems, decoded = {}, {}
    for name in [*SYSTEMS, HOSTILE]:
        modes = {}
        for mode in ("aware", "agnostic"):
            wrong = rng.random(len(langs)) < 0.5
            texts = [
                f"{'palabra' * 9} {HOSTILE} {text}" if bad else text
                for bad, text in zip(wrong, references, strict=True)
            ]
            found = list(rng.permutation(langs)) if mode == "agnostic" else None
            modes[mode] = decoded[name, mode] = Decoded(langs, references, texts, found)
        systems[name] = System(1000, 2**22, 2**25, modes)
    cross = {lang: decoded["mono", "aware"] for lang in LANGS}
    meta = {"backbone": HOSTILE, "run": "./run.sh " + "--option value " * 40}
    return results.build(systems, meta, samples=50, cross=cross), decoded


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Address of a page with all sections."""
    rng = np.random.default_rng(0)
    scored, decoded = scored_and_decoded(rng)
    langs = [lang for lang in LANGS for _ in range(6)]
    utts = [f"{lang}_{n}" for n, lang in enumerate(langs)]
    states = {name: rng.normal(size=(len(langs), 16)) for name in SYSTEMS[:3]}
    inside = Inside(
        {"mole": (LANGS, {key: rng.dirichlet(np.ones(5)) for key in KEYS[:6]})},
        LANGS,
        {key: np.corrcoef(rng.normal(size=(5, 20))) for key in KEYS},
        States([HOSTILE, *utts[1:]], langs, states),
    )
    curve = Curve(([10, 20, 30], [3.0, 2.0, 1.0]), ([15, 30], [2.5, 2.4]))
    clip = as_ogg(np.sin(np.arange(16_000) / 6).astype(np.float32) / 2, 16_000)
    ids = [HOSTILE, *(f"utterance_{'very_' * 12}long_{n}" for n in range(39))]
    wrong = {name: worst(ids, decoded[name, "agnostic"], 3) for name in SYSTEMS}
    clips = {one.utt: clip for found in wrong.values() for one in found}
    sweep = {layers: scored["systems"]["mole"] for layers in (1, 2, 4)}
    path = tmp_path_factory.mktemp("page") / "report.html"
    made = render(scored, decoded, inside, {"kd": curve}, sweep, wrong, clips)
    path.write_text(made, encoding="utf-8")
    return path.as_uri()


DRAWN = """() => [...document.querySelectorAll(".chart")].map(chart => {
    const size = chart.querySelector(".main-svg")?.getBoundingClientRect();
    const marks = chart.querySelectorAll(".point, .js-line, .hm image, .heatmap-label");
    const seen = [...marks].some(mark => mark.getBoundingClientRect().width > 0);
    return [chart.id, size?.width ?? 0, size?.height ?? 0, seen];
})"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [{"width": 1280, "height": 900}, PHONE], ids=str)
def test_every_chart_is_drawn_and_nothing_is_complained_of(visit, page, theme, size):
    with visit(page, color_scheme=theme, viewport=size, offline=True) as seen:
        charts = seen.page.evaluate(DRAWN)
        assert len(charts) == 28
        assert {chart[0].partition("-")[0] for chart in charts} == {
            "languages", "lid", "states", "experts", "fusion", "sweep", "curves"
        }  # fmt: skip
        for name, width, height, marked in charts:
            assert width > 200 and height > 100 and marked, name
        assert seen.overflow() == 0
        assert seen.complaints == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in seen.asked)
        assert seen.page.evaluate("typeof hacked") == "undefined"


def colours(page):
    """Colours of the page, and of a chart's text and marks."""
    return page.evaluate(
        """() => {
            const of = (selector, name) =>
                getComputedStyle(document.querySelector(selector))[name];
            return [of("body", "backgroundColor"), of("#curves .xtick text", "fill"),
                    of("#curves .js-line", "stroke"), of("figcaption", "color")];
        }"""
    )


def test_charts_follow_the_theme_while_the_page_is_open(visit, page):
    with visit(page, color_scheme="light") as seen:
        light = colours(seen.page)
        seen.page.emulate_media(color_scheme="dark")
        wait_until(seen.page, lambda: not {*light} & {*colours(seen.page)})
        seen.page.emulate_media(color_scheme="light")
        wait_until(seen.page, lambda: colours(seen.page) == light)
        assert seen.complaints == []


def wait_until(page, holds):
    """Within a minute: a busy machine is no error."""
    for _ in range(600):
        if holds():
            return
        page.wait_for_timeout(100)
    raise AssertionError("the page stays as it was")


def test_a_clip_can_be_played(visit, page):
    with visit(page) as seen:
        player = seen.page.locator("audio").first
        player.evaluate("player => player.play()")
        seen.page.wait_for_function(
            "() => document.querySelector('audio').currentTime > 0.2"
        )
        assert player.evaluate("player => player.duration") == pytest.approx(1, abs=0.1)
        assert seen.complaints == []


def test_wide_tables_scroll_in_their_box(visit, page):
    with visit(page, viewport=PHONE, is_mobile=True, has_touch=True) as seen:
        inner, outer = seen.page.evaluate(
            """() => {
                const box = document.querySelector(".scroll");
                return [box.scrollWidth, box.clientWidth];
            }"""
        )
        assert inner > outer
        for details in seen.page.locator("details").all():
            details.evaluate("details => { details.open = true }")
        assert seen.overflow() == 0
