"""The gate: claims where a store is configured, and free passage where none is."""

from __future__ import annotations

from types import NoneType

from lockbeat.claims.table import Passing
from lockbeat.claims.verbs import Claims
from lockbeat.values.checks import of_type


class Gate(Claims):
    """The verbs of claims, for a service that may or may not have a store: `Gate(lb.claims)`, `Gate(None)`.

    With None everything passes: `acquire` answers a claim (its outcome is "passthrough"), `renew`, `complete`, `fail`, `release`
    and `owns` answer True, `hold` runs its block, and there is nothing to list. So a service is written once, and begins to share
    its work when it is given claims, without another change. Bad arguments are refused either way.
    """

    def __init__(self, claims: Claims | None) -> None:
        of_type("claims", claims, (Claims, NoneType), "lb.claims or None")
        super().__init__(Passing() if claims is None else claims._table)
