"""Users and passwords that a provider makes for each new connection, as cloud services want them."""

from __future__ import annotations

from typing import Any

from redis.credentials import CredentialProvider

from lockbeat.errors import InvalidType, StoreUnavailable


class Credentials(CredentialProvider):
    """A provider of the user's, whose failure is an error of ours: connecting is tried again."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    async def get_credentials_async(self) -> Any:
        provider = self._provider
        try:
            if hasattr(provider, "get_credentials_async"):
                return await provider.get_credentials_async()
            return provider.get_credentials()
        except Exception as problem:
            raise StoreUnavailable(f"credential_provider: {type(problem).__name__}: {problem}") from problem


def check_provider(provider: Any) -> Any:
    if provider is not None and not callable(getattr(provider, "get_credentials", None)):
        raise InvalidType("credential_provider", f"must have get_credentials(), as redis-py's, not be {type(provider).__name__}")
    return provider
