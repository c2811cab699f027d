"""Seeded mutants: small mistakes put into the package one at a time, to see that a test notices each.

``python -m tests.mutants --help`` runs them. ``mutants.json`` is their list: drawn once, by a fixed seed,
from one revision. Each is kept by what it says (function, statement, operator) and not by its line, so
that it can be found again after its code moved to another file or was lightly renamed.
"""
