"""Programs under test, each run in a process of its own (benches/process.py drives them)."""
