"""Benchmarks: each module prints its figures as JSON; run with `python -m benchmarks.<name>`."""
