"""``python -m LowDoseBMDLib``: the command line."""

import sys

from .watched import main

if __name__ == "__main__":
    sys.exit(main())
