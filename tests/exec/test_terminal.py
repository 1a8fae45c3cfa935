"""A command that a person runs on a terminal: it reads from it, and Ctrl-C reaches it."""

from __future__ import annotations

import shlex
import signal
import sys

import pytest

from lockbeat.embedded import EmbeddedServer
from tests.cli.terminal import Terminal

from .conftest import raw, server, store

__all__ = ["raw", "server", "store"]
pytestmark = pytest.mark.usefixtures("store")

ASKS = "test -t 0 && test -t 1 && echo 'a tty'; read word; echo \"got $word\"; exec sleep 600"


def test_it_reads_from_the_terminal_and_is_interrupted_by_it(server: EmbeddedServer) -> None:
    url = f"unix://{server.socket_path}"
    with Terminal("exec", "report", "--url", url, "--", "sh", "-c", ASKS) as terminal:
        terminal.says("a tty")
        terminal.types("hello\n")
        terminal.says("got hello")
        with Terminal("exec", "report", "--url", url, "--", "true") as other:
            other.says("'report' is held by ")
            assert other.ends() == 75
        terminal.types("\x03")
        assert terminal.ends() == 128 + signal.SIGINT


def test_the_terminal_is_given_back(server: EmbeddedServer) -> None:
    """A shell that called it reads on."""
    call = f"{shlex.quote(sys.executable)} -m lockbeat exec report --url unix://{server.socket_path} -- cat"
    with Terminal(
        "exec", "outer", "--url", f"unix://{server.socket_path}", "--", "sh", "-c", f'{call}; read word; echo "got $word"'
    ) as terminal:
        terminal.types("in\n")
        terminal.says("in\r\nin")
        terminal.types("\x04")
        terminal.types("hello\n")
        terminal.says("got hello")
        assert terminal.ends() == 0
