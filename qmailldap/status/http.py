"""The site of ``--status``: few pages, read only, to few clients at a time, each for a short time.

Whoever reaches it, mail comes first: a client has one request on a connection, without a body,
`ASKING` seconds for that and `LONGEST` for all; `MOST_CONNECTIONS` are there at a time, of each
process, and of more the oldest that has asked nothing yet has to go. What a page costs is for the
page to bound.

A page is a ``twisted.web.resource.Resource`` and finds here the headers that all have in common. It
may set others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from qmailldap.ip import parse_ip
from qmailldap.loglevel import Log
from qmailldap.printable import printable

__all__ = ["ASKING", "LONGEST", "MOST_CONNECTIONS", "Page", "PlainText", "make_site"]

MOST_CONNECTIONS = 32
"""Those that are beyond are closed at once, where all others have asked."""

ASKING = 5.0
"""Seconds until a request is there, to its end."""

LONGEST = 30.0
"""Seconds that a connection lasts, whatever comes and however slowly it is read."""

_MOST_HEADERS = 100
_MOST_HEADER_OCTETS = 16 * 1024

_METHODS = (b"GET", b"HEAD")

_LOOPBACK = "localhost"

_log = Log(namespace="qmailldap.status")

_HEADERS = {
    b"Server": b"qmailldap",
    b"Cache-Control": b"no-store",
    b"X-Content-Type-Options": b"nosniff",
    b"X-Frame-Options": b"DENY",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"Content-Security-Policy": (
        b"default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none';"
        b" form-action 'none'; frame-ancestors 'none'"
    ),
}


def make_site(reactor: Any, pages: Mapping[str, IResource]) -> Site:
    """The site with ``pages`` by their paths without the slash before; "" is the front page."""
    return _Site({f"/{path}".encode("ascii"): page for path, page in pages.items()}, reactor)


class PlainText(Resource):
    """A page that is a line of text."""

    isLeaf = True

    def __init__(self, code: int, line: str) -> None:
        super().__init__()
        self._code = code
        self._line = line

    def render(self, request: Any) -> bytes:
        request.setResponseCode(self._code)
        request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
        return f"{self._line}\n".encode()


class Page(Resource):
    """A page whose content has to be waited for."""

    isLeaf = True

    def content(self, request: Any) -> Deferred[bytes]:
        """The octets of it; what else is to be set in the request is set meanwhile."""
        raise NotImplementedError

    def render_GET(self, request: Any) -> int:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def came(result: bytes | Failure) -> None:
            if isinstance(result, Failure):
                _log.failure("status path={path}", result, path=printable(request.path))
                result = PlainText(500, "this could not be made").render(request)
            # Nobody waits for it any more, maybe.
            if not gone:
                request.setHeader(b"Content-Length", b"%d" % len(result))
                request.write(result)
                request.finish()

        self.content(request).addBoth(came)
        return NOT_DONE_YET


class _Request(Request):
    def process(self) -> None:
        # Before twisted.web looks at it, which knows more methods than there are here.
        if self.method not in _METHODS:
            self._refuse(405, "GET and HEAD only")
        elif not self.path.startswith(b"/"):
            self._refuse(400, "no such page")
        elif not self._is_meant():
            self._refuse(421, "this address is asked for as localhost, or by its number")
        else:
            super().process()

    def _is_meant(self) -> bool:
        """Whether a browser may see this.

        On an address that only this host can reach, no other name is served: a page from elsewhere
        can have its own name lead here, and would then be allowed to read what is answered.
        """
        here = parse_ip(str(getattr(self.host, "host", "")))
        if here is None or not here.is_loopback:
            return True
        # Twisted has it from the header Host, without the port.
        name = self.getRequestHostname().decode("latin-1").strip("[]").lower()
        return name in ("", _LOOPBACK) or parse_ip(name) is not None

    def render(self, resrc: Any) -> None:
        for name, value in _HEADERS.items():
            self.setHeader(name, value)
        body = resrc.render(self)
        if body is not NOT_DONE_YET:
            self.setHeader(b"Content-Length", b"%d" % len(body))
            # Of the answer to HEAD this leaves out the body; twisted.web would also log it.
            self.write(body)
            self.finish()

    def _refuse(self, code: int, line: str) -> None:
        if code == 405:
            self.setHeader(b"Allow", b", ".join(_METHODS))
        self.render(PlainText(code, line))


class _Channel(HTTPChannel):
    """One connection, and one request on it."""

    maxHeaders = _MOST_HEADERS
    totalHeadersSize = _MOST_HEADER_OCTETS

    site: _Site
    transport: Any
    _time_is_up: IDelayedCall | None = None
    _has_body = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self._time_is_up = self.site.reactor.callLater(ASKING, self.make_room)
        self.site.silent[self] = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_clock()
        self.site.left(self)
        super().connectionLost(reason)

    def _stop_clock(self) -> None:
        if self._time_is_up is not None and self._time_is_up.active():
            self._time_is_up.cancel()

    def make_room(self) -> None:
        """Another may have the place of this one."""
        self.transport.abortConnection()

    def allHeadersReceived(self) -> None:
        self.site.silent.pop(self, None)
        self._stop_clock()
        self._time_is_up = self.site.reactor.callLater(
            LONGEST - ASKING, self.transport.abortConnection
        )
        if self.length == 0:
            super().allHeadersReceived()
            return
        # Nothing is asked here with a body, and twisted.web would keep one of any size on a disk.
        self._has_body = True
        self.transport.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n")
        self.loseConnection()

    def rawDataReceived(self, data: bytes) -> None:
        if not self._has_body:
            super().rawDataReceived(data)

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False


class _Site(Site):
    displayTracebacks = False
    requestFactory = _Request
    protocol: Any = _Channel
    noisy = False

    def __init__(self, pages: Mapping[bytes, IResource], reactor: Any) -> None:
        nothing = PlainText(404, "no such page")
        super().__init__(nothing, timeout=LONGEST, reactor=reactor)
        self._pages = pages
        self._connections = 0
        self.silent: dict[_Channel, None] = {}
        """Those that have not asked yet, the oldest first."""

    def getResourceFor(self, request: Any) -> IResource:
        """The page of just this path: there is nothing below any."""
        request.sitepath = []
        page: IResource = self._pages.get(request.path, self.resource)
        return page

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self._connections >= MOST_CONNECTIONS:
            if not self.silent:
                return None
            oldest = next(iter(self.silent))
            # At once, and not when it is lost: several may come in one go.
            del self.silent[oldest]
            oldest.make_room()
        self._connections += 1
        return super().buildProtocol(addr)

    def left(self, channel: _Channel) -> None:
        """That connection is gone."""
        self.silent.pop(channel, None)
        self._connections -= 1

    def startFactory(self) -> None:
        """There is no log of requests to open, and no clock to keep for it."""

    def stopFactory(self) -> None:
        """Nor to close."""

    def log(self, request: Any) -> None:
        """Who looks, and how often, is nobody's business."""
