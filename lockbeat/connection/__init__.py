"""How to reach a store: read its URL, then open connections to it.

address = parse_url("redis://localhost:6379/0")      pure; InvalidURL names what is wrong
connector = await Connector.open(url)                starts or joins the server of embedded://
await connector.dedicated_for_key(key, timeout=5)    one connection that retries nothing, to the key's primary
connector.memory_client()                            what memory:// has instead: a client of fakeredis
"""

from lockbeat.connection._connector import Connector, Primary
from lockbeat.connection._credentials import check_provider
from lockbeat.connection._url import Address, parse_url
from lockbeat.connection.final import SeveralAway, is_final

__all__ = ["Address", "Connector", "Primary", "SeveralAway", "check_provider", "is_final", "parse_url"]
