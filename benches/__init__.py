"""Benchmarks: ``python -m benches SUBJECT`` (benches/README.md says how to read a number)."""
