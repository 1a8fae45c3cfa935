"""The gate: claims where a store is configured, and free passage where none is."""

from __future__ import annotations

from lockbeat.claims.table import Passing
from lockbeat.claims.verbs import Claims
from lockbeat.errors import InvalidType


class Gate(Claims):
    """The verbs of claims, for a service that may or may not have a store: `Gate(lb.claims)`, `Gate(None)`.

    With None everything passes: `acquire` answers a claim (its outcome is "passthrough"), `renew`, `complete`, `fail`, `release`
    and `owns` answer True, `hold` runs its block, and there is nothing to list. So a service is written once, and begins to share
    its work when it is given claims, without another change. Bad arguments are refused either way.
    """

    def __init__(self, claims: Claims | None) -> None:
        if claims is not None and not isinstance(claims, Claims):
            raise InvalidType("claims", f"must be lb.claims or None, not {type(claims).__name__}")
        super().__init__(Passing() if claims is None else claims._table)
