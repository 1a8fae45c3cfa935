"""The store: the only door to the scripts, and the pages that list what Python and Lua share."""

from lockbeat.store.store import Store

__all__ = ["Store"]
