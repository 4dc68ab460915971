"""Listeners behind a proxy that says, by a header before all else, whom it speaks for.

Source: https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt, versions 1 and 2. Unlike
with Twisted's wrapper, headers may come in any pieces, what they say is checked, and the protocol
behind is built only when the client is known.
"""

from qmailldap.haproxy.header import BadHeader, Header, parse_header
from qmailldap.haproxy.wrapper import ProxyFactory

__all__ = ["BadHeader", "Header", "ProxyFactory", "parse_header"]
