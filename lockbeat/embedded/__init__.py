"""A real Valkey server for one machine, shared by every process of a user that names the same directory.

Four advisory locks in the directory carry the whole protocol; the kernel drops each when its holders die, so
`kill -9` of anybody leaves nothing to clean up:

    lock    exclusive, held for the milliseconds in which a process joins, starts, ends or leaves
    users   shared, held by every process that uses the server; who gets it exclusively was the last one
    alive   exclusive, inherited by the server: while it is held a server runs, whatever a pid file might say
    watch   exclusive, inherited by the process that ends the server when it has had no user for five minutes

Nobody is ever signalled: a server is ended by SHUTDOWN over its own socket. The data is an append-only file
beside the locks, so what was scheduled outlives both the last user and a killed server. Every write is synced
before it is answered: what an instance was told stays true, at the price of a sync for each turn of the server.
"""

from lockbeat.embedded._launch import find_binary
from lockbeat.embedded._paths import default_directory
from lockbeat.embedded._serve import serve_forever
from lockbeat.embedded._server import EmbeddedServer

__all__ = ["EmbeddedServer", "default_directory", "find_binary", "serve_forever"]
