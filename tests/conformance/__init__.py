"""Conformance runner: ``python -m tests.conformance SUBJECT FOLDER [--json]``."""
