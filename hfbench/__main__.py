"""``python -m hfbench``."""

import sys

from hfbench.start import main

if __name__ == "__main__":
    sys.exit(main())
