"""The side of the one who asks a probe: `lockbeat check`, from the same machine or container."""

from __future__ import annotations

import http.client
import json
from typing import Any

from lockbeat.health.state import Verdict

MOST = 65_536
"""Bytes of an answer that are read."""


def ask(path: str, port: int, host: str, timeout: float) -> Verdict | str:
    """What the instance that listens there says of itself; or why it says nothing: it is stopped, stuck, or not there."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        said: Any = json.loads(response.read(MOST))
        return Verdict(response.status == 200 and said["ok"] is True, said["phase"], tuple(map(str, said["problems"])))
    except TimeoutError:
        return f"no answer within {timeout:g} s: it is stopped, or stuck"
    except OSError as problem:
        return f"nobody answers: {problem.strerror or problem}"
    except (http.client.HTTPException, ValueError, LookupError, TypeError):
        return "what answers there is no instance of lockbeat"
    finally:
        connection.close()
