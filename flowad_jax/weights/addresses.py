"""Which addresses files are fetched from, and where a server may send a request on to."""

from __future__ import annotations

import ipaddress
import socket
import urllib.parse
import urllib.request

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RefusedError(Exception):
    """There is no such file to be had from the address."""


def require_safe(address: str) -> None:
    """Raises a `RefusedError` unless it is https, or http where the host is this machine."""
    parsed = urllib.parse.urlsplit(address)
    local = parsed.scheme == "http" and parsed.hostname in _LOOPBACK
    if parsed.scheme != "https" and not local:
        raise RefusedError(f"{address} is not an https address")


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, as release pages have them, but not to where no user would go.

    That is from https to anything else, and from outside into this machine or a private network,
    where a server could make us ask what it cannot ask itself.
    """

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """Looks at the new address first."""
        try:
            _require_redirect(req.full_url, newurl)
        except RefusedError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_redirect(origin: str, target: str) -> None:
    require_safe(target)
    scheme, wanted = (urllib.parse.urlsplit(address).scheme for address in (target, origin))
    if wanted == "https" and scheme != "https":
        raise RefusedError(f"{origin} redirects to {target}, which is not an https address")
    if _is_inside(target) and not _is_inside(origin):
        raise RefusedError(f"{origin} redirects to {target}, which is inside a private network")


def _is_inside(address: str) -> bool:
    """Whether a host is this machine or of a private network, by all of its addresses."""
    try:
        found = socket.getaddrinfo(urllib.parse.urlsplit(address).hostname, None)
    except (OSError, UnicodeError):  # a proxy may know the name; without one nothing is fetched
        return False
    return not all(_is_global(entry[4][0]) for entry in found)


def _is_global(text: str | int) -> bool:
    ip = ipaddress.ip_address(text)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_global
