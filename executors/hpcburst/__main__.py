"""`python -m hpcburst` is the command `hpcburst`."""

import sys

from hpcburst.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
