"""Scores of decoded speech: errors with intervals, results, tables."""
