"""`python -m lockbeat`: the command line."""

import sys

from lockbeat.cli import main

if __name__ == "__main__":
    sys.exit(main())
