"""Fuzzing of every parser: python -m tests.fuzz --help."""
