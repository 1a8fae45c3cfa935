"""Whether an instance is well: for probes, for systemd, and for a program that asks `beat.health` itself.

`state` knows how the instance stands, `turning` whether its event loop turns. `watch` looks from a thread of its own and tells
`systemd`, `http` answers probes from others, and `asking` is the side of the one who asks.
"""

from lockbeat.health.state import Health, Phase, Verdict
from lockbeat.health.turning import Turning

__all__ = ["Health", "Phase", "Turning", "Verdict"]
