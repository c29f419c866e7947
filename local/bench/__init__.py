"""Rows of local/benchmark.py: ours and a peer on the same work, side by side."""

import warnings

warnings.filterwarnings("ignore")  # of the packages that are compared
