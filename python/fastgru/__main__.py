"""``python -m fastgru``: the command line."""

import sys

from fastgru.cli import main

if __name__ == "__main__":
    sys.exit(main())
