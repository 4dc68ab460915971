"""SASL (RFC 4422, RFC 5034): what is said within AUTH, one small class a mechanism.

Each is fed with what the client has said, decoded, and gives the next challenge or the login that
is to be judged. Nothing is judged here.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Protocol

import attrs
from twisted.cred.credentials import CramMD5Credentials, UsernamePassword
from twisted.mail.pop3 import APOPCredentials

from qmailldap.refusal import LoginRefused, Refusal

__all__ = [
    "CramMD5",
    "Login",
    "MalformedResponse",
    "Mechanism",
    "Plain",
    "PlainLogin",
    "apop_login",
    "decode",
    "encode",
    "initial",
    "plain_login",
]

_DIGEST = re.compile(rb"[0-9a-fA-F]{32}")


class MalformedResponse(Exception):
    """What the client has said is not what the mechanism wants; the text is safe to send."""


@attrs.frozen
class Login:
    """A login to be judged.

    ``credentials`` are what a portal takes. ``password`` is empty where it was not sent. ``method``
    says how it was, for the log. ``refused`` is set where there is nothing to judge.
    """

    user: bytes
    method: str
    credentials: object = attrs.field(repr=False)
    password: bytes = attrs.field(default=b"", repr=False)
    refused: LoginRefused | None = None


class Mechanism(Protocol):
    """One authentication exchange."""

    def step(self, response: bytes | None) -> bytes | Login:
        """The next challenge, or the login; ``response`` is None where there is no initial one.

        Raises `MalformedResponse`.
        """


def encode(challenge: bytes) -> bytes:
    """A challenge as it stands on a line."""
    return base64.b64encode(challenge)


def decode(line: bytes) -> bytes:
    """A response by its line. Raises `MalformedResponse` for anything but canonical base64."""
    try:
        response = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedResponse("not base64") from None
    # What else it takes, as bits that mean nothing, depends on the version of Python.
    if base64.b64encode(response) != line:
        raise MalformedResponse("not base64")
    return response


def initial(word: bytes) -> bytes:
    """An initial response by its word on the line of the command, where ``=`` is an empty one."""
    return b"" if word == b"=" else decode(word)


def plain_login(
    user: bytes, password: bytes, method: str, refused: LoginRefused | None = None
) -> Login:
    """A login by a password that the client has sent."""
    return Login(user, method, UsernamePassword(user, password), password, refused)


def apop_login(challenge: bytes, user: bytes, digest: bytes) -> Login:
    """A login by APOP (RFC 1939, section 7). Raises `MalformedResponse`."""
    if not _DIGEST.fullmatch(digest):
        raise MalformedResponse("no digest")
    # Twisted compares it with text.
    expected = digest.lower().decode("ascii")
    return Login(user, "apop", APOPCredentials(challenge, user, expected))


class Plain:
    """PLAIN (RFC 4616): whom to act as, which must be oneself; the user name; the password."""

    def step(self, response: bytes | None) -> bytes | Login:
        if response is None:
            return b""
        acting_as, user, password = _three(response)
        try:
            response.decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedResponse("not UTF-8") from None
        if not user:
            raise MalformedResponse("no user name")
        refused = None
        if acting_as not in (b"", user):
            refused = LoginRefused(
                Refusal.WRONG_CREDENTIALS, "one user may not act as another, as AUTH PLAIN asks for"
            )
        return plain_login(user, password, "plain", refused)


def _three(response: bytes) -> list[bytes]:
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise MalformedResponse("not three parts")
    return parts


class PlainLogin:
    """LOGIN, which is in no RFC: it asks for the user, then for the password."""

    def __init__(self) -> None:
        self._user = b""

    def step(self, response: bytes | None) -> bytes | Login:
        if response is None:
            return b"Username:"
        if b"\0" in response:
            raise MalformedResponse("NUL")
        if self._user:
            return plain_login(self._user, response, "login")
        if not response:
            raise MalformedResponse("no user name")
        self._user = response
        return b"Password:"


class CramMD5:
    """CRAM-MD5 (RFC 2195): proves to know a password by a digest of it and the ``challenge``."""

    def __init__(self, challenge: bytes) -> None:
        self._challenge = challenge
        self._asked = False

    def step(self, response: bytes | None) -> bytes | Login:
        if response is None:
            self._asked = True
            return self._challenge
        if not self._asked:
            # A digest of what the client cannot know yet.
            raise MalformedResponse("no initial response")
        user, _, digest = response.rpartition(b" ")
        if not user or b"\0" in user or not _DIGEST.fullmatch(digest):
            raise MalformedResponse("no user name and digest")
        credentials = CramMD5Credentials()
        credentials.challenge = self._challenge
        credentials.username, credentials.response = user, digest.lower()
        return Login(user, "cram-md5", credentials)
