"""The app in a real browser: a real clip, real weights, several systems."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_lora_experts.bin.backbone import write_vanilla
from espnet_lora_experts.experts.bank import lora_config
from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.report.kaldi import read_table
from espnet_lora_experts.whisper.folder import load_system, save_system
from espnet_lora_experts.whisper.systems import Experts

pytestmark = pytest.mark.integration

LANGS = ["es", "ru"]
HARMLESS = re.compile(r"Method not implemented\.|.*/gradio_api/queue/data\?.*")
"""Gradio's player warns so of any clip; an event stream is closed when all came."""
DONE = "() => document.body.innerText.match(/RTF/g)?.length == 2"


@pytest.fixture(scope="module")
def expdir(recipe, tmp_path_factory) -> Path:
    """Whisper as it came, and fresh experts of it."""
    folder = tmp_path_factory.mktemp("exp")
    backbone, _, _ = load_system(recipe / "exp/vanilla")
    write_vanilla(folder / "vanilla", backbone, LANGS)
    for lang in LANGS:
        backbone.bank.add(lang, lora_config(r=4))
    save_system(folder / "mono", backbone, Experts(LANGS))
    return folder


@pytest.fixture(scope="module")
def clip(recipe) -> Path:
    """A Spanish clip."""
    wavs = read_table(recipe / "dump/raw/test/wav.scp")
    return recipe / next(path for utt, path in wavs.items() if utt.startswith("es"))


@pytest.fixture(scope="module")
def app(expdir, tmp_path_factory):
    """The running app: its address, and where its temporary files are."""
    temp = tmp_path_factory.mktemp("temp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "espnet_lora_experts.bin.app"]
    command += ["--expdir", expdir, "--port", str(port)]
    command += ["--max_upload_mb", "1", "--max_duration", "20"]
    environment = {**os.environ, "TMPDIR": str(temp)}
    with open(temp.with_suffix(".log"), "w+") as log:
        process = subprocess.Popen(
            [*map(str, command)], env=environment, stdout=log, stderr=log
        )
        try:
            yield wait_for(log, process), temp
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert not [*temp.iterdir()]
            log.seek(0)
            assert "Traceback" not in log.read()


def wait_for(log, process) -> str:
    """The address, once the app has written it."""
    while process.poll() is None:
        log.seek(0)
        if found := re.search(
            r"open (http://127\.0\.0\.1:\d+)/ in a browser", log.read()
        ):
            return found[1]
        time.sleep(0.2)
    log.seek(0)
    raise AssertionError(log.read()[-3000:])


def texts(page) -> list[str]:
    """What the cards show, in the order of the systems."""
    return [card.input_value() for card in page.locator(".cards textarea").all()]


def upload(page, path) -> None:
    """Puts a file in and asks for its transcripts."""
    page.set_input_files("input[type=file]", path)
    page.wait_for_selector("[data-testid^=waveform]")
    page.get_by_role("button", name="Transcribe").click()


def test_a_clip_is_transcribed_by_every_system(app, visit, expdir, clip):
    url, temp = app
    vanilla = Speech2Text.from_pretrained(expdir / "vanilla")
    mono = Speech2Text.from_pretrained(expdir / "mono")
    found = vanilla(clip)
    with visit(
        url, color_scheme="dark", viewport={"width": 390, "height": 844}
    ) as seen:
        upload(seen.page, clip)
        seen.page.wait_for_function(DONE)
        assert texts(seen.page) == [mono(clip, found.lang).text, found.text]
        assert found.text
        shown = seen.page.locator(".cards").inner_text()
        assert "(found by Whisper) · score" in shown
        share = round(100 * found.posteriors["es"])
        assert re.search(rf"Spanish\s+{share}%", shown)
        assert seen.overflow() == 0
        assert all(map(HARMLESS.fullmatch, seen.complaints)), seen.complaints
        assert all(asked.startswith((url, "data:", "blob:")) for asked in seen.asked)
        uploads = [path.name for path in temp.rglob("*") if path.is_file()]
        assert uploads == [clip.name]


def test_the_language_is_given_and_a_system_chosen(app, visit, expdir, clip):
    mono = Speech2Text.from_pretrained(expdir / "mono")
    with visit(app[0]) as seen:
        page = seen.page
        page.get_by_label("Language").click()
        choices = page.get_by_role("option").all_inner_texts()
        assert [text.strip("✓ \n") for text in choices] == [
            "Find the language",
            "Russian",
            "Spanish",
        ]
        page.get_by_role("option", name="Russian").click()
        page.get_by_label("vanilla").uncheck()
        upload(page, clip)
        page.get_by_text("Russian (given)").wait_for()
        page.get_by_text("running").wait_for(state="hidden")
        assert texts(page) == [mono(clip, "ru").text]


@pytest.mark.parametrize(
    "seconds, rate, message",
    [
        (25, 16_000, "long.wav must be 20 s long at most: cut it first."),
        (15, 48_000, "exceed the maximum allowed size of 1.0 Mb"),
    ],
)
def test_too_much_is_refused_in_plain_words(
    app, visit, tmp_path, seconds, rate, message
):
    noise = np.random.RandomState(0).uniform(-0.1, 0.1, seconds * rate)
    soundfile.write(tmp_path / "long.wav", noise, rate)
    with visit(app[0]) as seen:
        seen.page.set_input_files("input[type=file]", tmp_path / "long.wav")
        if rate == 16_000:
            seen.page.wait_for_selector("[data-testid^=waveform]")
            seen.page.get_by_role("button", name="Transcribe").click()
        seen.page.get_by_text(message).wait_for()
        assert texts(seen.page) == ["", ""]


def test_an_address_in_use_is_an_error_without_traceback(app, expdir):
    command = [sys.executable, "-m", "espnet_lora_experts.bin.app"]
    command += ["--expdir", str(expdir), "--systems", "vanilla"]
    command += ["--port", app[0].rpartition(":")[2]]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 1
    assert "error: --host and --port must be free to listen on, but" in done.stderr
    assert "Traceback" not in done.stderr
