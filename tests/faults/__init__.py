"""Kills each long job anywhere, and shows that nothing is lost: ``-m tests.faults``."""
