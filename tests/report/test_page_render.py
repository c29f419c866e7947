"""The page: whole, self-contained, and safe against whatever the texts hold."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from espnet_lora_experts.report.page.models import Inside, States
from espnet_lora_experts.report.page.render import render
from espnet_lora_experts.report.page.sources import Curve
from espnet_lora_experts.report.page.worst import Piece, Utterance

HOSTILE = "</script><script>hacked = 1</script><img src=x onerror='hacked = 1'>\"'&"


class Elements(HTMLParser):
    """Elements with their attributes, texts, and the content of scripts by id."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.texts, self.scripts = [], [], {}
        self._script = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._script = dict(attrs).get("id", f"{tag}{len(self.scripts)}")

    def handle_endtag(self, tag):
        self._script = None

    def handle_data(self, data):
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        else:
            self.texts.append(data)

    def json(self, id):
        return json.loads(self.scripts[id])


def page_of(run, inside=None, curves=None, sweep=None, worst=None, clips=None):
    made = render(
        *run, inside or Inside(), curves or {}, sweep or {}, worst or {}, clips or {}
    )
    return made, Elements(made)


@pytest.fixture(scope="module")
def bare(run):
    return page_of((run[0], {}))


def test_only_results_are_needed_and_the_rest_says_who_makes_it(bare):
    _, found = bare
    text = " ".join(found.texts)
    assert text.count("Left out.") == 7
    charts = {
        attrs["id"] for _, attrs in found.elements if attrs.get("class") == "chart"
    }
    assert charts == set(found.json("figures")) == {f"languages-{n}" for n in range(3)}


def test_the_page_loads_nothing(bare):
    page, found = bare
    for tag, attrs in found.elements:
        for name in ("src", "href", "srcset", "action", "poster"):
            address = attrs.get(name) or "#"
            assert address.startswith(("#", "data:")), (tag, address)
    (policy,) = (
        attrs["content"]
        for tag, attrs in found.elements
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';") and "http" not in policy
    assert page.count("plotly.js v") == 1
    assert len(page) < 6e6


def test_links_lead_to_sections(bare):
    _, found = bare
    ids = {attrs.get("id") for _, attrs in found.elements}
    links = [attrs["href"] for tag, attrs in found.elements if tag == "a"]
    assert len(links) == 10 and {link.removeprefix("#") for link in links} <= ids


@pytest.fixture(scope="module")
def hostile(run):
    """A page into which every text from outside tries to break."""
    scored, decoded = run
    scored = {
        "meta": {**scored["meta"], "backbone": HOSTILE, "run": HOSTILE, HOSTILE: 1},
        "systems": {**scored["systems"], HOSTILE: scored["systems"]["kd"]},
        "cross": {HOSTILE: {"es": 1.0, "fr": 2.0}},
    }
    decoded = {**decoded, (HOSTILE, "agnostic"): decoded["kd", "agnostic"]}
    states = States([HOSTILE] * 3, ["es", "fr", "es"], {HOSTILE: np.eye(3)})
    inside = Inside(
        {HOSTILE: ([HOSTILE, "b"], {"encoder.layers.0.fc1": np.array([0.4, 0.6])})},
        [HOSTILE, "b"],
        {"encoder.layers.0.fc1": np.eye(2)},
        states,
    )
    curves = {HOSTILE: Curve(([1], [1.0]), ([1], [1.0]))}
    pieces = [Piece("substitute", HOSTILE, HOSTILE), Piece("insert", "", HOSTILE)]
    one = Utterance(HOSTILE, "es", HOSTILE, 200.0, 2, "words", pieces)
    worst, clips = {HOSTILE: [one]}, {HOSTILE: "data:audio/ogg;base64,AA=="}
    return page_of((scored, decoded), inside, curves, None, worst, clips)


def test_texts_stay_texts(hostile, bare):
    _, found = hostile
    tags = [tag for tag, _ in found.elements]
    assert "img" not in tags
    assert tags.count("script") == [t for t, _ in bare[1].elements].count("script") == 5
    assert not any(
        name.startswith("on") for _, attrs in found.elements for name in attrs
    )
    shown = "".join(found.texts)
    assert shown.count(HOSTILE) >= 8
    assert found.json("clips") == {HOSTILE: "data:audio/ogg;base64,AA=="}


def test_figures_hold_no_markup_of_others(hostile):
    _, found = hostile
    figures = json.dumps(found.json("figures"))
    assert "&lt;img src=x" in figures and "<img" not in figures


def test_each_clip_is_embedded_once_and_only_there_is_a_player(run):
    def of(utt):
        return Utterance(utt, "es", None, 100.0, 1, "words", [Piece("delete", "a", "")])

    worst = {"multi": [of("heard"), of("gone")], "kd": [of("heard")]}
    address = "data:audio/ogg;base64,T2dnUw=="
    page, found = page_of(run, worst=worst, clips={"heard": address})
    players = [attrs["data-clip"] for tag, attrs in found.elements if tag == "audio"]
    assert players == ["heard", "heard"]
    assert page.count(address) == 1
