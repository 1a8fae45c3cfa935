"""Where an embedded store lives, and whether that place can be trusted.

Nobody but us and root may be able to put another directory, file or link where we are about to read or write: not on the
way to the directory, and not in it. Root is held to the same, for root would follow a stranger's links anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from lockbeat.errors import InvalidArgument

_SOCKET_PATH_MAX = 103  # bytes: sun_path holds 104 on macOS and 108 on Linux, with the final NUL
_MOST_LINKS = 40  # as Linux has it
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_OURS = frozenset(
    ["lock", "users", "alive", "watch", "engine", "server.log", "server.pid", "server.sock", "appendonlydir", "dump.rdb"]
)
"""What we and the server make in the directory; besides files named temp-*, the server's own."""


def default_directory() -> Path:
    """Where `embedded://` without a path lives: one directory a user, private to them.

    Not $XDG_RUNTIME_DIR: a login session has it and a cron line of the same user has not, and two directories
    would be two stores that each fire every slot.
    """
    return Path(tempfile.gettempdir()) / f"lockbeat-{os.geteuid()}"


def prepare(path: str | os.PathLike[str] | None) -> Path:
    """Make the directory when it is missing, check that it is ours, and give its one true name. Raises InvalidArgument."""
    given = Path(path) if path is not None and os.fspath(path) != "" else None
    try:
        directory = make(_private(default_directory()) if given is None else given.expanduser())
        _look_inside(directory)
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ of a user without a home
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidArgument("path", f"{given or default_directory()} can't be used as a directory: {reason}") from error
    return directory


def make(path: Path) -> Path:
    """The directory without links in its name, made when it is missing. Raises InvalidArgument, OSError.

    Each directory and link on the way is ours or root's, and nobody else can rename what lies in it.
    """
    at, links = Path("/"), 0
    parts = [*reversed((Path.cwd() / path).parts[1:])]
    found = at.stat()
    while parts:
        part = parts.pop()
        if part == "..":
            at, found = at.parent, at.parent.stat()
            continue
        _check_on_the_way(at, found)
        step = at / part
        found = _found_or_made(step, 0o755 if parts else 0o700)
        if not stat.S_ISLNK(found.st_mode):
            at = step
            continue
        links += 1
        if found.st_uid not in _trusted():
            raise InvalidArgument("path", f"{step} is a link of another user's")
        if links > _MOST_LINKS:
            raise InvalidArgument("path", f"{path} has too many links on its way")
        target = Path(os.readlink(step))
        at, found = (Path("/"), Path("/").stat()) if target.is_absolute() else (at, at.stat())
        parts += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    check_ours(at, found)
    return at


def _found_or_made(directory: Path, mode: int) -> os.stat_result:
    try:
        return directory.lstat()
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another process was first
            _make(directory, mode)
        return directory.lstat()


def _make(directory: Path, mode: int) -> None:
    """Make a directory that we can use, whatever the umask takes away; nobody else can have put another in its place."""
    directory.mkdir(mode)
    made = stat.S_IMODE(directory.lstat().st_mode)
    if made & stat.S_IRWXU != stat.S_IRWXU:
        directory.chmod(made | stat.S_IRWXU)


def check_ours(directory: Path, found: os.stat_result) -> None:
    """Raises InvalidArgument for a directory that is not ours alone to write to."""
    if not stat.S_ISDIR(found.st_mode):
        raise InvalidArgument("path", f"{directory} is no directory")
    _check_owner(directory, found)
    if found.st_mode & stat.S_IWOTH:
        raise InvalidArgument("path", f"{directory} can be written by every user of this machine: chmod go-w it")
    if found.st_mode & stat.S_IWGRP:
        raise InvalidArgument("path", f"{directory} can be written by its group: chmod g-w it")


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise InvalidArgument("path", f"{path} belongs to another user (id {found.st_uid}, not {os.geteuid()})")


def open_ours(path: Path, flags: int) -> int:
    """Open a plain file of ours in a directory of ours, following no link. Raises InvalidArgument, OSError."""
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        check_ours(path.parent, os.fstat(parent))
        with contextlib.suppress(FileNotFoundError):
            _check_inside(path, os.stat(path.name, dir_fd=parent, follow_symlinks=False), alone=True)
        # O_NONBLOCK: nobody is kept waiting by a pipe that lies there.
        fd = os.open(path.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=parent)
    finally:
        os.close(parent)
    try:
        _check_inside(path, found := os.fstat(fd), alone=True)
        if flags & os.O_CREAT and found.st_mode & 0o600 != 0o600:  # a umask took it away
            os.fchmod(fd, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd


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
        _make(directory, 0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise InvalidArgument("path", f"{directory} is not a directory that only user {os.geteuid()} can use")
    return make(directory)


def _look_inside(directory: Path) -> None:
    """The server opens its files by name and follows links: what lies there from a time when others could write must be ours."""
    lying = [path for path in directory.iterdir() if path.name in _OURS or path.name.startswith("temp-")]
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        lying += (directory / "appendonlydir").iterdir()
    for path in lying:
        with contextlib.suppress(FileNotFoundError):  # the server has just ended, or rewritten its file
            _check_inside(path, path.lstat(), alone=path.name in ("server.log", "server.pid"))


def _check_inside(path: Path, found: os.stat_result, *, alone: bool) -> None:
    """`alone`: under no second name, which may be another program's file. Backups link to the data, which is only added to."""
    mode = found.st_mode
    if stat.S_ISLNK(mode):
        raise InvalidArgument("path", f"{path} is a link, and none is followed: remove it")
    _check_owner(path, found)
    if mode & _WRITABLE_BY_OTHERS:
        raise InvalidArgument("path", f"{path} can be written by others: chmod go-w it")
    if alone and not stat.S_ISREG(mode):
        raise InvalidArgument("path", f"{path} is no plain file: remove it")
    if alone and found.st_nlink > 1:
        raise InvalidArgument("path", f"{path} has another name elsewhere (a hard link): remove it")


def _check_on_the_way(directory: Path, found: os.stat_result) -> None:
    """Raises InvalidArgument where others could put another directory in the place of what lies in this one."""
    if not stat.S_ISDIR(found.st_mode):
        raise InvalidArgument("path", f"{directory} is no directory")
    if found.st_uid not in _trusted():
        raise InvalidArgument("path", f"{directory}, on the way to it, belongs to another user (id {found.st_uid})")
    others = found.st_mode & _WRITABLE_BY_OTHERS
    if others == stat.S_IWGRP and _is_our_own_group(found.st_gid):
        return  # umask 002, where each user has a group of their own
    if others and not found.st_mode & stat.S_ISVTX:
        raise InvalidArgument("path", f"{directory}, on the way to it, can be written by others: chmod go-w it")


def _trusted() -> frozenset[int]:
    """Whose directories and links may lie on the way: ours and root's."""
    owners = {os.geteuid(), 0}
    # In a user namespace that does not map root, the system's own directories belong to nobody.
    with contextlib.suppress(OSError, ValueError):
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            owners.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    return frozenset(owners)


def _is_our_own_group(gid: int) -> bool:
    """Whether a group has nobody but us in it, as far as its name and members say."""
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and gid == user.pw_gid and not set(group.gr_mem) - {user.pw_name}
