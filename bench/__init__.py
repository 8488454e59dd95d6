"""Comparisons with peers, in one run on one machine: `python -m bench`."""
