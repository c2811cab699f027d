"""A laboratory of faults: phicrypt against servers whose answers are late, broken, swapped or forged.

``python -m tests.faults`` runs it; ``docs/reliability.md`` says what it is to show.
"""
