"""How every command line ends: bad input is one line, not a traceback."""

import logging
import sys
from collections.abc import Callable


def run(main: Callable[[], object]) -> None:
    """Runs a command; an error of input exits with its message and status 1."""
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        logging.debug("traceback", exc_info=True)
        sys.exit(f"error: {error}")
