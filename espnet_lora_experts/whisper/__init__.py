"""Whisper: backbone, languages, systems of gates, decoding."""
