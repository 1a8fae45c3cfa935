"""TLS by URL: the files that it names, and what a mistake in it looks like from here."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from lockbeat.connection._url import Address
from lockbeat.errors import InvalidURL

_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
_HUNG_UP = ("while reading", "while writing", "closed by server", "Connection reset", "Connection lost", "Protocol Error")


def check_files(address: Address) -> None:
    """Read what the URL's TLS options name. Raises InvalidURL with the option: Python itself does not say which file."""
    given = address.options
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for option, argument in (("ssl_ca_certs", "cafile"), ("ssl_ca_path", "capath"), ("ssl_ca_data", "cadata")):
        if option in given:
            with _naming(option if option == "ssl_ca_data" else f"{option} {given[option]!r}"):
                context.load_verify_locations(**{argument: given[option]})
                if argument == "cafile" and not context.cert_store_stats()["x509"]:
                    raise ValueError("it holds no certificate")
    if "ssl_ciphers" in given:
        with _naming(f"ssl_ciphers {given['ssl_ciphers']!r}"):
            context.set_ciphers(given["ssl_ciphers"])
    certificate, key = given.get("ssl_certfile"), given.get("ssl_keyfile")
    if certificate is None and key is not None:
        raise InvalidURL("url", "has ssl_keyfile without ssl_certfile")
    for option in ("ssl_certfile", "ssl_keyfile"):
        if option in given:
            with _naming(f"{option} {given[option]!r}"):
                open(given[option], "rb").close()
    if certificate is not None:
        opened = ", with this ssl_password," if "ssl_password" in given else ""
        what = f"and ssl_keyfile {key!r}{opened}" if key else "without an ssl_keyfile"
        with _naming(f"ssl_certfile {certificate!r} {what}"):
            context.load_cert_chain(certificate, key, given.get("ssl_password") or _no_password)


def _no_password() -> str:
    raise ValueError("the key needs a password: ssl_password")  # else OpenSSL asks for it on the terminal


@contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as problem:
        raise InvalidURL("url", f"{what} can't be used: {_words(problem)}") from problem


def _words(problem: Exception) -> str:
    if isinstance(problem, ssl.SSLError):
        words = f"{getattr(problem, 'reason', None) or problem}".replace("_", " ").lower()
        return "it holds no certificate and key in PEM" if "pem lib" in words else words
    return getattr(problem, "strerror", None) or str(problem)


def hint(address: Address, problem: BaseException) -> str | None:
    """What the URL may have wrong about TLS, judged by what connecting said; None: nothing that is known."""
    said = str(problem)
    if not address.nodes:
        return None
    if not address.tls:
        if any(words in said for words in _HUNG_UP):
            return f"the server hangs up without an answer: if it expects TLS, write {_other(address)}"
        return None
    if "CERTIFICATE_VERIFY_FAILED" in said:
        if "mismatch" in said or "not valid for" in said:
            return "its certificate is for another name: connect by that name, or write ssl_check_hostname=no"
        if "expired" in said or "not yet valid" in said:
            return "its certificate is out of date"
        if "key usage" in said or "key identifier" in said:
            return "its CA's certificate lacks what Python asks for from 3.13 on (an extension): have it made anew"
        named = address.options.get("ssl_ca_certs") or address.options.get("ssl_ca_path")
        which = f"the CA in {named} did not sign it: " if named else ""
        return f"its certificate is not trusted here: {which}name the file of its CA, ssl_ca_certs=/PATH/ca.pem"
    if "No such file or directory" in said:
        return "a file that its ssl_ options name is there no more"
    if "PROTOCOL_VERSION" in said or "UNSUPPORTED_PROTOCOL" in said:
        return "it speaks no version of TLS that we do: ssl_min_version="
    if any(words in said for words in _NO_TLS) or "Timeout connecting" in said:
        return f"no TLS is spoken there, as it seems: if so, write {_other(address)}"
    if ("ALERT" in said or any(words in said for words in _HUNG_UP)) and "ssl_certfile" not in address.options:
        return "it may want a certificate of ours: ssl_certfile=/PATH/client.pem&ssl_keyfile=/PATH/client.key"
    return None


def _other(address: Address) -> str:
    scheme = address.scheme
    return (scheme.replace("rediss", "redis", 1) if address.tls else scheme.replace("redis", "rediss", 1)) + "://"
