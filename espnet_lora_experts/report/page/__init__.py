"""The report: one HTML page that holds all it needs, and shows what a run found out."""
