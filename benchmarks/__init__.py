"""The benchmark suite: ``python -m benchmarks --help``; what it measures stands in ``docs/performance.md``."""
