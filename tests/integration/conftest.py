"""What these tests share: the recipe's quick run, and a real headless Chromium."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "egs2/mini_multilingual/asr1"
MADE = {"exp", "data", "dump", "downloads", "RESULTS.md"}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--no-sandbox", "--disable-gpu", "--mute-audio")
PATIENCE = 120_000
"""Milliseconds that a page may take: a busy machine is no error."""


@pytest.fixture(scope="session")
def run():
    """Runs the recipe as a user would, in a folder and with some options."""

    def run(folder: Path, *options: str) -> subprocess.CompletedProcess:
        command = ["./run.sh", "--quick", "true", *options]
        return subprocess.run(command, cwd=folder, text=True, capture_output=True)

    return run


@pytest.fixture(scope="session")
def recipe(run, tmp_path_factory) -> Path:
    """The recipe's folder, run once in quick mode; downloads are shared."""
    folder = tmp_path_factory.mktemp("asr1")
    for path in RECIPE.iterdir():
        if path.name not in MADE:
            (folder / path.name).symlink_to(path)
    done = run(folder, "--download_dir", str(RECIPE / "downloads"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    """ESPnet's source tree, fetched as the documentation says."""
    folder = tmp_path_factory.mktemp("espnet") / "espnet"
    venv = {"VIRTUAL_ENV": str(Path(sys.executable).parent.parent)}
    done = subprocess.run(
        [str(ROOT / "local/espnet.sh"), str(folder)],
        env={**os.environ, **venv},
        text=True,
        capture_output=True,
    )
    if "pip could not download" in done.stderr:
        pytest.skip(f"ESPnet's source distribution: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@dataclass
class Visit:
    """An open page and what it complains of.

    Attributes:
        page: Playwright's page.
        complaints: Errors of the console and of scripts, addresses that did not load.
        asked: Addresses that it asked for.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        element = "document.documentElement"
        return self.page.evaluate(f"{element}.scrollWidth - {element}.clientWidth")


def find_chromium() -> str:
    """Path of Chromium; installed by apt-get first where this is root's Debian."""
    found = _on_path()
    if not found and os.getuid() == 0 and shutil.which("apt-get"):
        options = ["-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600"]
        for words in (["update"], ["install", *options, "chromium"]):
            subprocess.run(["apt-get", *words], capture_output=True, check=False)
        found = _on_path()
    if not found:
        pytest.fail(
            f"Chromium must be installed, but none of {NAMES} is on PATH; as root:"
            " apt-get install chromium"
        )
    return found


def _on_path() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The running browser, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=[*FLAGS], timeout=PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens an address: ``with visit(url, color_scheme="dark") as seen: seen.page``.

    Options are those of Playwright's ``new_context``, for example ``viewport``.
    """

    @contextmanager
    def opened(url: str, **options) -> Iterator[Visit]:
        context = chromium.new_context(**options)
        context.set_default_timeout(PATIENCE)
        seen = Visit(context.new_page())
        seen.page.on("console", lambda said: _hear(seen, said))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.on("requestfailed", lambda gone: seen.complaints.append(gone.url))
        seen.page.on("request", lambda request: seen.asked.append(request.url))
        try:
            seen.page.goto(url)
            yield seen
        finally:
            context.close()

    return opened


def _hear(seen: Visit, said: Any) -> None:
    if said.type in ("error", "warning"):
        seen.complaints.append(said.text)
