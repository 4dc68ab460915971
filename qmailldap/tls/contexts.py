"""What OpenSSL is told of the connections of clients: versions, ciphers, the certificate shown."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress

from OpenSSL import SSL
from twisted.internet.ssl import CertificateOptions

from qmailldap.tls.pem import BadCertificate, Chain

__all__ = ["server_context"]

_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_RENEGOTIATION
_SESSIONS_OF = b"qmailldap"
_ROUND_TRIPS = 2
_LARGEST_FLIGHT = 1024 * 1024


def server_context(
    chain: Chain, said_hello: Callable[[SSL.Connection], None] | None
) -> SSL.Context:
    """The context of connections on which a certificate is shown; TLS 1.2 is the oldest version.

    ``said_hello``, if any, is called when a client has said whom it means, if it does, and may give
    the connection another context; it must raise nothing. Raises `BadCertificate`.

    Each context has a key of its own, made at random, by which it knows its tickets again. Of a
    connection that is given another context it is still the first one's that counts.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS)
    # Connections are many, and wait for most of their time.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # Sessions are resumed by tickets that clients keep (RFC 5077, RFC 8446 section 4.6.1): nothing
    # of a session stays here when its connection has gone.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(_SESSIONS_OF)
    host, *above = chain.certificates
    try:
        context.use_certificate(host)
        context.use_privatekey(chain.key)
        for each in above:
            context.add_extra_chain_cert(each)
        context.check_privatekey()
    except SSL.Error as error:
        # As a key that is too small, or a digest that is too weak, for OpenSSL's security level.
        raise BadCertificate(f"OpenSSL does not take it: {_said(error)}") from None
    if said_hello is not None:
        # Of every context: OpenSSL asks the one that a connection has by then, and may ask again.
        context.set_tlsext_servername_callback(said_hello)
    context.set_cipher_list(_ciphers())
    try:
        _shake_hands(context)
    except SSL.Error as error:
        raise BadCertificate(f"no client could use it: {_said(error)}") from None
    return context


def _shake_hands(context: SSL.Context) -> None:
    """Be a client of one's own: a key that is damaged is not seen before it is used.

    Raises ``SSL.Error``.
    """
    server = SSL.Connection(context, None)
    server.set_accept_state()
    client = SSL.Connection(_client_context(), None)
    client.set_connect_state()
    for _ in range(_ROUND_TRIPS):
        for each, other in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                each.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(each.bio_read(_LARGEST_FLIGHT))


@functools.cache
def _client_context() -> SSL.Context:
    # Of whom the certificate is, others judge.
    return SSL.Context(SSL.TLS_CLIENT_METHOD)


@functools.cache
def _ciphers() -> bytes:
    """Those of Twisted that this OpenSSL knows."""
    stock = SSL.Connection(CertificateOptions().getContext(), None)
    return ":".join(stock.get_cipher_list()).encode("ascii")


def _said(error: SSL.Error) -> str:
    # A list of (library, function, what) where OpenSSL has said anything.
    said = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(each[-1]) for each in said) or "without a reason"
