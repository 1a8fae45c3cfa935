"""lockbeat's own logger: whatever it is told of, its lines are safe to show and one line each."""

from __future__ import annotations

import logging
from typing import Any

from lockbeat.values.tracebacks import MOST, both_ends, traceback_of
from lockbeat.values.visible import visible

log = logging.getLogger("lockbeat")


class _Safe(logging.Filter):
    """Escapes what is foreign in a record, before any handler of anybody's sees it.

    Arguments stay arguments, so that whoever groups messages by their template can. A traceback is left in `exc_info` as it
    is; its text, which formatters print, is made here. So are the stacks of others, from `extra={"stacks": text}`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_shown, record.args))
        if record.exc_info and not record.exc_text:
            record.exc_text = visible(traceback_of(*record.exc_info), keep="\n\t")
        if stacks := getattr(record, "stacks", None):
            record.stack_info = visible(both_ends(stacks), keep="\n\t")
        return True


def _shown(arg: Any) -> Any:
    """The argument itself, unless its text has something to escape."""
    if isinstance(arg, int | float):
        return arg
    try:
        text = str(arg)
    except Exception:  # noqa: BLE001 - an exception's own __str__
        return f"<{type(arg).__name__}, which can't be shown>"
    if len(text) > MOST:
        return visible(both_ends(text))
    return arg if text.isprintable() else visible(text)


log.addFilter(_Safe())
