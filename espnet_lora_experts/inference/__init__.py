"""Speech to text with a trained system: clips, lists of clips, long recordings."""

from espnet_lora_experts.inference.result import Result, Segment, Transcript
from espnet_lora_experts.inference.speech2text import Speech2Text

__all__ = ["Result", "Segment", "Speech2Text", "Transcript"]
