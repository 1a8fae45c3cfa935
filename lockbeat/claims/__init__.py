"""Claims: leases on units of work, with an outcome. For work that several instances find, and one is to do."""

from lockbeat.claims._claims import Claims
from lockbeat.claims._gate import Gate
from lockbeat.claims._handle import ClaimHandle
from lockbeat.claims._values import Busy, Claim, ClaimStats, Done

__all__ = ["Busy", "Claim", "ClaimHandle", "ClaimStats", "Claims", "Done", "Gate"]
