"""Where an embedded store lives, and whether that place can be trusted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from lockbeat.errors import InvalidArgument

_SOCKET_PATH_MAX = 103  # bytes: sun_path holds 104 on macOS and 108 on Linux, with the final NUL


def default_directory() -> Path:
    """Where `embedded://` without a path lives: one directory a user, private to them.

    Not $XDG_RUNTIME_DIR: a login session has it and a cron line of the same user has not, and two directories
    would be two stores that each fire every slot.
    """
    return Path(tempfile.gettempdir()) / f"lockbeat-{os.geteuid()}"


def prepare(path: str | os.PathLike[str] | None) -> Path:
    """Make the directory when it is missing, check that it is ours, and give its one true name."""
    if path is None or os.fspath(path) == "":
        return _private(default_directory())
    directory = Path(path)
    try:
        directory = directory.expanduser()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = directory.resolve(strict=True)
        found = directory.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ of a user without a home
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidArgument("path", f"{directory} can't be used as a directory: {reason}") from error
    if os.geteuid() not in (found.st_uid, 0) and found.st_uid != 0:
        raise InvalidArgument("path", f"{directory} belongs to another user")
    if found.st_mode & stat.S_IWOTH:
        raise InvalidArgument("path", f"{directory} can be written by every user of this machine")
    return directory


def socket_path(directory: Path) -> str:
    """The server's socket: in the directory, or under a short name where that one is too long."""
    inside = str(directory / "server.sock")
    if len(os.fsencode(inside)) <= _SOCKET_PATH_MAX:
        return inside
    # The same for every process, whatever its TMPDIR: it has to be found from the directory's name alone.
    short = _private(Path("/tmp") / f"lockbeat-{os.geteuid()}")  # noqa: S108 - checked to be ours alone
    return str(short / f"{hashlib.sha256(os.fsencode(directory)).hexdigest()[:20]}.sock")


def _private(directory: Path) -> Path:
    """A directory of ours under a world-writable one: whoever got there first must not choose our server."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise InvalidArgument("path", f"{directory} is not a directory that only user {os.geteuid()} can use")
    return directory.resolve()
