"""`python -m leray`: the same as the `leray` command."""

import sys

from leray.cli import main

if __name__ == "__main__":
    sys.exit(main())
