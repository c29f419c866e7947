"""Rows of local/benchmark.py: ours and a peer on the same work, side by side."""
