"""The ways in for octets that anybody has made up.

Each takes any octets, and raises only where something is wrong with the code behind it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
from ldaptor.protocols import pureldap
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from fuzz.actions import decode, encode
from fuzz.leftovers import Leftovers
from fuzz.scenarios import SCENARIOS
from fuzz.site import CLEAR_PASSWORD, PASSWORD, Mail, Options
from fuzz.world import ROOMS, play
from qmailldap.account import AccountDefaults, parse_account, password_values
from qmailldap.control.files import FILES, read_files
from qmailldap.directory._client import Connection
from qmailldap.directory.search import SearchAnswer
from qmailldap.haproxy import BadHeader, parse_header
from qmailldap.passwords import MalformedHash, parse_password, why_no_match
from qmailldap.pop3 import sasl
from qmailldap.refusal import LoginRefused

__all__ = ["TARGETS", "Target", "options_of"]

_BETWEEN = b"\0\xff"
"""Stands between parts: of a name and its value, of lines."""


@attrs.frozen
class Target:
    """``prepare`` gives what is called with octets, again and again, and what ends it.

    ``seeds`` are octets from which a search may begin. ``share`` is how much of the time it needs.
    """

    prepare: Callable[[], tuple[Callable[[bytes], None], Callable[[], None]]]
    seeds: Callable[[], Iterator[bytes]]
    share: int = 1


# Sessions.


def options_of(octet: int) -> Options:
    """Those that the bits of one octet stand for."""
    return Options(
        tls=bool(octet & 1),
        haproxy=bool(octet & 2),
        requires_tls=bool(octet & 4),
        cleartext=(octet >> 3) % 3,
    )


def _octet_of(options: Options) -> int:
    return next(octet for octet in range(256) if options_of(octet) == options)


def _session() -> tuple[Callable[[bytes], None], Callable[[], None]]:
    mail = Mail()
    leftovers = Leftovers((PASSWORD, CLEAR_PASSWORD), ROOMS)

    def run(octets: bytes) -> None:
        options = options_of(octets[0] if octets else 0)
        play(decode(octets[1:]), mail, leftovers, options)

    def end() -> None:
        leftovers.stop()
        mail.remove()

    return run, end


def _session_seeds() -> Iterator[bytes]:
    for scenario in SCENARIOS.values():
        yield bytes([_octet_of(scenario.options)]) + encode(scenario.actions)


# The PROXY header.


def _proxy_header(octets: bytes) -> None:
    try:
        found = parse_header(octets)
    except BadHeader:
        return
    if found is None:
        assert len(octets) < 4096, "it wants more than the longest header has"
        return
    _, end = found
    assert 0 < end <= len(octets)
    # However it comes: nothing less is the header, and nothing behind it belongs to it.
    assert all(parse_header(octets[:size]) is None for size in range(end))
    assert parse_header(octets[:end]) == found


def _proxy_seeds() -> Iterator[bytes]:
    yield b"PROXY TCP4 198.51.100.9 192.0.2.1 4711 110\r\n"
    yield b"PROXY TCP6 2001:db8::9 ::1 4711 110\r\nUSER x\r\n"
    yield b"PROXY UNKNOWN\r\n"
    start = b"\r\n\r\n\0\r\nQUIT\n"
    yield start + b"\x20\x00\x00\x00"
    ends = b"\xc6\x33\x64\x09\xc0\x00\x02\x01\x12\x67\x00\x6e"
    yield start + b"\x21\x11\x00\x0c" + ends
    yield start + b"\x21\x11\x00\x14" + ends + b"\x20\x00\x05\x01\x00\x00\x00\x00"
    yield start + b"\x21\x21\x00\x24" + b"\x20" + b"\x01" * 31 + b"\x12\x67\x00\x6e"


# SASL.


def _sasl(octets: bytes) -> None:
    kind, *lines = octets.split(_BETWEEN)
    mechanism: sasl.Mechanism = (
        sasl.Plain(),
        sasl.PlainLogin(),
        sasl.CramMD5(b"<1.2@mail1.example.org>"),
    )[(kind[0] if kind else 0) % 3]
    try:
        step = mechanism.step(sasl.initial(kind[1:]) if kind[1:] else None)
        for line in lines:
            if isinstance(step, sasl.Login):
                break
            step = mechanism.step(sasl.decode(line))
    except sasl.MalformedResponse as error:
        assert str(error).isprintable() and str(error).isascii()
        return
    if isinstance(step, sasl.Login):
        assert step.user and b"\0" not in step.user + step.password
        assert len(step.password) < 5 or repr(step.password)[2:-1] not in repr(step)
    else:
        assert len(sasl.encode(step)) < 500


def _sasl_seeds() -> Iterator[bytes]:
    yield b"\0AGpvZQBjb3JyZWN0LWhvcnNl"
    yield b"\0" + _BETWEEN + b"am9lAGpvZQBjb3JyZWN0LWhvcnNl"
    yield b"\1" + _BETWEEN + b"am9l" + _BETWEEN + b"Y29ycmVjdC1ob3JzZQ=="
    yield b"\1am9l" + _BETWEEN + b"Y29ycmVjdC1ob3JzZQ=="
    yield b"\2" + _BETWEEN + sasl.encode(b"joe " + b"0123456789abcdef" * 2)


# What a directory server says.


def _ldap(octets: bytes) -> None:
    """A search and a bind wait while it comes, cut as the first octet says."""
    clock, transport = Clock(), StringTransport()
    losses: list[object] = []
    connection = Connection(clock, 10.0, lambda _, loss: losses.append(loss))
    connection.makeConnection(transport)
    waiting: list[Deferred[Any]] = [
        connection.search(pureldap.LDAPSearchRequest(baseObject=b"", sizeLimit=2), 5.0),
        connection.bind_as(b"uid=joe", b"secret", 5.0),
    ]
    results: list[object] = []
    for each in waiting:
        each.addBoth(results.append)
    cut = 1 + (octets[0] if octets else 0)
    for start in range(1, len(octets), cut):
        connection.dataReceived(octets[start : start + cut])
    clock.advance(20.0)
    connection.connectionLost(connectionDone)
    clock.advance(20.0)
    assert len(results) == len(waiting), "somebody is still waiting"
    assert len(losses) == 1, losses
    assert not clock.getDelayedCalls()
    for result in results:
        if isinstance(result, SearchAnswer):
            for entry in result.entries:
                _entry(entry)


def _entry(entry: object) -> None:
    """What an entry says is either an account or a refusal."""
    try:
        parse_account(b"joe", entry, AccountDefaults())  # type: ignore[arg-type]
    except LoginRefused as refused:
        assert len(refused.detail) < 4000
    for value in password_values(entry):  # type: ignore[arg-type]
        _password_value(value)


def _ldap_seeds() -> Iterator[bytes]:
    def message(number: int, operation: object) -> bytes:
        octets: bytes = pureldap.LDAPMessage(operation, id=number).toWire()
        return octets

    attributes = [
        ("userPassword", [b"{SSHA}c2VjcmV0c2VjcmV0c2VjcmV0c2FsdA=="]),
        ("qmailUID", [b"1000"]),
        ("qmailGID", [b"1000"]),
        ("homeDirectory", [b"/home/joe"]),
        ("mailQuotaSize", [b"1000000"]),
    ]
    found = message(1, pureldap.LDAPSearchResultEntry(b"uid=joe,dc=example", attributes))
    done = message(1, pureldap.LDAPSearchResultDone(resultCode=0))
    bound = message(2, pureldap.LDAPBindResponse(resultCode=49, errorMessage=b"no"))
    yield b"\xff" + found + done + bound
    yield b"\x03" + bound + done
    yield b"\xff" + message(1, pureldap.LDAPSearchResultReference([b"ldap://x"])) + done
    yield b"\xff" + message(
        0,
        pureldap.LDAPExtendedResponse(
            resultCode=52, responseName=b"1.3.6.1.4.1.1466.20036", errorMessage=b"bye"
        ),
    )


# What records and control files hold.


def _password_value(value: bytes) -> None:
    for cleartext in (False, True):
        try:
            parse_password(value, cleartext=cleartext)
        except MalformedHash as error:
            assert str(error).isprintable()
            assert len(value) < 20 or value.decode("latin-1") not in str(error)
        else:
            why_no_match(value)


def _password_seeds() -> Iterator[bytes]:
    yield b"{SSHA}c2VjcmV0c2VjcmV0c2VjcmV0c2FsdA=="
    yield b"{CRYPT}$6$saltsalt$abc"
    yield b"{PBKDF2-SHA256}1000$c2FsdA$c2VjcmV0"
    yield b"{ARGON2}$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$c2VjcmV0c2VjcmV0"
    yield b"{CLEAR}battery-staple"
    yield b"clear"


def _control() -> tuple[Callable[[bytes], None], Callable[[], None]]:
    place = tempfile.TemporaryDirectory(prefix="qmailldap-fuzz-")
    folder = Path(place.name)

    def run(octets: bytes) -> None:
        for part in octets.split(_BETWEEN):
            name = FILES[(part[0] if part else 0) % len(FILES)].name
            (folder / name).write_bytes(part[1:])
        try:
            reading = read_files(folder)
            reading.control()
            for fault in reading.faults:
                assert "\n" not in fault.problem and fault.problem.isprintable(), fault
        finally:
            for path in folder.iterdir():
                path.unlink()

    return run, place.cleanup


def _control_seeds() -> Iterator[bytes]:
    values = (
        *(b"ldap1 ldap2:389\n", b"ldaps://ldap1:636\n[::1]:389\n", b"1\n", b"-1\n", b"# none\n"),
        *(b"(&(objectClass=x)(y=z))\n", b"127.0.0.0/8\n2001:db8::/32\n", b".example.org:h:110\n"),
        *(b"connections:10\nlogin-time:20\n", b"1000000S,10C\n", b"./Maildir/\n", b"\xef\xbb\xbfx"),
    )
    for number in range(len(FILES)):
        yield _BETWEEN.join(bytes([number]) + value for value in values)


TARGETS = {
    "session": Target(_session, _session_seeds, share=6),
    "proxy-header": Target(lambda: (_proxy_header, _nothing), _proxy_seeds),
    "sasl": Target(lambda: (_sasl, _nothing), _sasl_seeds),
    "ldap": Target(lambda: (_ldap, _nothing), _ldap_seeds, share=2),
    "password": Target(lambda: (_password_value, _nothing), _password_seeds),
    "control": Target(_control, _control_seeds),
}


def _nothing() -> None:
    """There is nothing to put away."""
