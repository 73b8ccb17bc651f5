"""``python -m meshsieve``: the command line."""

import sys

from meshsieve.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
