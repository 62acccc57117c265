"""python -m eigendrift: the command line."""

import sys

from eigendrift.cli import main

if __name__ == "__main__":
    sys.exit(main())
