"""Coverage-guided fuzzing of every parser of what others can write: ``python -m tests.fuzz``."""
