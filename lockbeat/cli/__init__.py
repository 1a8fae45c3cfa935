"""The command line. `main` is its entry; `commands` has what can be typed, each module here what it does.

Data goes to stdout, plain where it is no terminal; what went wrong is one line on stderr. Exit codes: 0 well, 1 the state of
things (no store, no such job), 2 the way it was called.
"""

from lockbeat.cli._app import main

__all__ = ["main"]
