"""embedded://DIR goes only where nobody but us, and root, can have put what it reads and writes. Root is held to the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lockbeat.embedded import EmbeddedServer, default_directory
from lockbeat.errors import InvalidArgument

ROOT = os.geteuid() == 0
STRANGER = 12_345

as_root = pytest.mark.skipif(not ROOT, reason="only root can give a file away")


def to_stranger(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def precious(tmp_path: Path) -> Path:
    """A file that must be as it was."""
    path = tmp_path / "precious"
    path.write_text("as it was")
    return path


FILES = ["lock", "users", "alive", "engine", "server.log", "server.pid", "server.sock", "appendonlydir", "temp-1.rdb", "dump.rdb"]


@pytest.mark.parametrize("name", FILES)
def test_no_link_in_the_directory_is_followed(tmp_path: Path, name: str) -> None:
    directory, file = tmp_path / "store", precious(tmp_path)
    directory.mkdir(mode=0o700)
    (directory / name).symlink_to(file)
    with pytest.raises(InvalidArgument, match=f"{name} is a link"):
        EmbeddedServer.open(directory)
    assert file.read_text() == "as it was"


def test_no_link_among_the_data_is_followed(tmp_path: Path) -> None:
    directory, file = tmp_path / "store", precious(tmp_path)
    (directory / "appendonlydir").mkdir(mode=0o700, parents=True)
    directory.chmod(0o700)
    (directory / "appendonlydir" / "appendonly.aof.1.incr.aof").symlink_to(file)
    with pytest.raises(InvalidArgument, match="is a link"):
        EmbeddedServer.open(directory)
    assert file.read_text() == "as it was"


@pytest.mark.parametrize("name", ["lock", "users", "alive", "engine", "server.log", "server.pid"])
def test_a_file_with_a_second_name_is_not_written(tmp_path: Path, name: str) -> None:
    directory, file = tmp_path / "store", precious(tmp_path)
    directory.mkdir(mode=0o700)
    (directory / name).hardlink_to(file)
    with pytest.raises(InvalidArgument, match="hard link"):
        EmbeddedServer.open(directory)
    assert file.read_text() == "as it was"


@pytest.mark.parametrize("name", ["lock", "users", "engine"])
def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    os.mkfifo(directory / name)
    with pytest.raises(InvalidArgument, match="no plain file"):
        EmbeddedServer.open(directory)


def _group_writable(store: Path) -> None:
    store.chmod(0o770)


def _world_writable(store: Path) -> None:
    store.chmod(0o702)


def _sticky_and_world_writable(store: Path) -> None:
    store.chmod(0o1777)


def _file_of_the_group(store: Path) -> None:
    (store / "engine").touch()
    (store / "engine").chmod(0o660)


def _in_a_directory_for_all(store: Path) -> None:
    store.parent.chmod(0o777)


@pytest.mark.parametrize(
    "spoil", [_group_writable, _world_writable, _sticky_and_world_writable, _file_of_the_group, _in_a_directory_for_all]
)
def test_what_others_can_write_to_is_refused(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    store = tmp_path / "way" / "store"
    store.mkdir(mode=0o700, parents=True)
    spoil(store)
    with pytest.raises(InvalidArgument, match="can be written by"):
        EmbeddedServer.open(store)
    assert not (store / "server.sock").exists()


def _directory(store: Path) -> None:
    to_stranger(store)


def _engine(store: Path) -> None:
    (store / "engine").touch()
    to_stranger(store / "engine")


def _data(store: Path) -> None:
    (store / "appendonlydir").mkdir()
    to_stranger(store / "appendonlydir")


def _directory_above(store: Path) -> None:
    to_stranger(store.parent)


@as_root
@pytest.mark.parametrize("give_away", [_directory, _engine, _data, _directory_above])
def test_what_belongs_to_another_user_is_refused_for_root_too(tmp_path: Path, give_away: Callable[[Path], None]) -> None:
    store = tmp_path / "way" / "store"
    store.mkdir(mode=0o700, parents=True)
    give_away(store)
    with pytest.raises(InvalidArgument, match="belongs to another user"):
        EmbeddedServer.open(store)
    assert not (store / "server.sock").exists()


@as_root
def test_a_link_of_another_user_leads_nowhere_and_one_of_ours_does(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)  # as /tmp
    link = shared / "link"
    link.symlink_to(tmp_path / "store")
    with EmbeddedServer.open(link / "deeper") as server:
        assert server.directory == tmp_path / "store" / "deeper"
    to_stranger(link)
    with pytest.raises(InvalidArgument, match="link of another user"):
        EmbeddedServer.open(link / "deeper")


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    store.mkdir(mode=0o700)
    mine = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: STRANGER)
    monkeypatch.setattr("lockbeat.embedded._paths._trusted", lambda: frozenset({mine, 0, STRANGER}))
    with pytest.raises(InvalidArgument, match="belongs to another user"):
        EmbeddedServer.open(store)


def test_links_that_go_round_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InvalidArgument, match="too many links"):
        EmbeddedServer.open(tmp_path / "a" / "store")


@pytest.mark.parametrize("way", ["there/../store", "./store", "link/store", "up/store"])
def test_a_directory_has_one_name_however_it_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(".")
    (tmp_path / "up").symlink_to(tmp_path)
    with EmbeddedServer.open(way) as server:
        assert server.directory == tmp_path / "store"


def test_directories_made_on_the_way_pass_the_same_check(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        EmbeddedServer.open(tmp_path / "a" / "b" / "store").close()
        EmbeddedServer.open(tmp_path / "a" / "b" / "store").close()
    finally:
        os.umask(before)


def test_links_from_a_backup_to_the_data_are_no_obstacle(tmp_path: Path) -> None:
    EmbeddedServer.open(tmp_path / "store").close()
    for number, file in enumerate((tmp_path / "store" / "appendonlydir").iterdir()):
        (tmp_path / f"backup-{number}").hardlink_to(file)
    EmbeddedServer.open(tmp_path / "store").close()


def test_the_default_directory_is_held_to_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    default_directory().mkdir(mode=0o700)
    (default_directory() / "engine").symlink_to(precious(tmp_path))
    with pytest.raises(InvalidArgument, match="engine is a link"):
        EmbeddedServer.open()


ODD_UMASK = """
import os, stat, sys
from pathlib import Path
from lockbeat.embedded import EmbeddedServer
os.umask(int(sys.argv[2], 8))
directory = Path(sys.argv[1])
with EmbeddedServer.open(directory):
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in (directory.parent, directory, *directory.iterdir())}
    print({name: oct(mode) for name, mode in modes.items() if mode & 0o600 != 0o600 or mode & 0o022})
with EmbeddedServer.open(directory, persist=False):
    pass
"""


@pytest.mark.parametrize("umask", ["777", "277", "077", "002"])
def test_whatever_the_umask_the_directory_and_what_is_in_it_can_be_used(tmp_path: Path, umask: str) -> None:
    """A umask of 0777 made a directory that nobody but root could enter, and said that there is no permission."""
    args = [sys.executable, "-c", ODD_UMASK, str(tmp_path / "above" / "store"), umask]
    done = subprocess.run(args, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "{}\n"), done.stderr
