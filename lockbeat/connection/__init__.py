"""How to reach a store: read its URL, then open clients and connections to it.

address = parse_url("redis://localhost:6379/0")      pure; InvalidURL names what is wrong
connector = await Connector.open(url)                starts or joins the server of embedded://
connector.async_client() / .sync_client()            fresh clients that retry nothing
await connector.dedicated_for_key(key, timeout=5)    one connection outside any pool, to the key's primary
"""

from lockbeat.connection._connector import Connector, connect
from lockbeat.connection._url import Address, parse_url

__all__ = ["Address", "Connector", "connect", "parse_url"]
