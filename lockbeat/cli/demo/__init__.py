"""The demo: instances share jobs over an embedded store of their own while one is killed and one is frozen.

jobs     what the instances run; it notes its doings in a file, past the store
_cast    the instances: processes
_story   what is done to them, and when
_check   holds what happened against what was due
_stage   what is known at a moment, for _display to show
"""

from lockbeat.cli.demo._story import show_demo

__all__ = ["show_demo"]
