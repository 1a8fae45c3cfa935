"""A page over a store: `dashboard(lb)`, an ASGI application to mount anywhere, and `lockbeat web`. It needs the extra `web`."""

from __future__ import annotations

from lockbeat.errors import MissingExtra

try:
    import jinja2 as _jinja2  # noqa: F401 - asked for here, so that one error says what is missing
    import starlette as _starlette  # noqa: F401
except ImportError as error:
    raise MissingExtra(f"the web page needs {error.name}: pip install 'lockbeat[web]'") from error

from lockbeat.web.board import Dashboard, dashboard
from lockbeat.web.guard import ACTIONS, Allow, Basic, User

__all__ = ["ACTIONS", "Allow", "Basic", "Dashboard", "User", "dashboard"]
