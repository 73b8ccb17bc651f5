"""The report of a capture under a policy: one self-contained page, or Markdown; what it says is gathered once."""
