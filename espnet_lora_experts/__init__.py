"""LoRA language experts for multilingual Whisper, as an ESPnet plug-in.

One frozen Whisper, a bank of LoRA experts inside it, and a gate that says, for each
utterance, how much of each expert it gets: see :mod:`espnet_lora_experts.experts.gate`.
"""

__version__ = "0.1.0"


def __getattr__(name):
    """Import ``Speech2Text`` when it is asked for: importing us stays cheap."""
    if name == "Speech2Text":
        from espnet_lora_experts.inference import Speech2Text

        return Speech2Text
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
