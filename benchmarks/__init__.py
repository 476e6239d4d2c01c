"""Benchmarks: `make bench` runs them all and writes the table of README.md."""
