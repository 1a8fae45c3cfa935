"""Claims: leases on units of work, with an outcome. For work that several instances find, and one is to do."""

from lockbeat.claims.gate import Gate
from lockbeat.claims.handle import ClaimHandle
from lockbeat.claims.values import Busy, Claim, ClaimStats, Done
from lockbeat.claims.verbs import Claims

__all__ = ["Busy", "Claim", "ClaimHandle", "ClaimStats", "Claims", "Done", "Gate"]
