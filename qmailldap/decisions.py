"""What the log tells of how a login is decided: lines for whoever looks for the reason.

The checker says what it has found and done, and here it is put into words, if anybody wants to read
them. No password and no value of userPassword may enter.
"""

from __future__ import annotations

from collections.abc import Iterator

from qmailldap.account import (
    ACCOUNT_ATTRIBUTES,
    Account,
    AccountDefaults,
    Entry,
    RemoteAccount,
)
from qmailldap.loglevel import Kind, Log
from qmailldap.printable import Fields, printable

__all__ = ["tell_account", "tell_found", "tell_member", "tell_proof"]

_LONGEST = 256

_log = Log(namespace="qmailldap.checker")


def tell_found(login: bytes, entries: tuple[Entry, ...]) -> None:
    """The directory has answered with these entries."""
    if _log.shows(Kind.DEBUG):
        if not entries:
            _log.debug("found user={user} entries=0", user=printable(login))
        for entry in entries:
            _log.debug(
                "found user={user} entries={entries} dn={dn}",
                user=printable(login),
                entries=len(entries),
                dn=_shown(entry.dn),
            )
    if _log.shows(Kind.DEBUG_MORE):
        for entry in entries:
            _log.debug(
                "record user={user} {attributes}",
                kind=Kind.DEBUG_MORE,
                user=printable(login),
                attributes=Fields([*_attributes(entry)] or [("attributes", "none")]),
            )


def tell_proof(login: bytes, how: str, proved: bool | None) -> None:
    """The password was compared; ``how`` is a scheme or a way, None says that nothing could be."""
    if _log.shows(Kind.DEBUG):
        _log.debug(
            "proof user={user} by={how} password={proved}",
            user=printable(login),
            how=how,
            proved={True: "right", False: "wrong", None: "unknown-user"}[proved],
        )


def tell_member(account: RemoteAccount) -> None:
    """The mail is elsewhere."""
    if _log.shows(Kind.DEBUG):
        _log.debug(
            "account user={user} mail=elsewhere mailhost={mailhost}",
            user=printable(account.login),
            mailhost=_shown(account.mail_host),
        )


def tell_account(
    account: Account, entry: Entry | None = None, defaults: AccountDefaults | None = None
) -> None:
    """The mail is here; of passwd's users there is no entry, and no default."""
    if _log.shows(Kind.DEBUG):
        _log.debug(
            "account user={user} mail=here uid={uid} gid={gid} home={home} mailbox={mailbox}"
            " quota={quota}",
            user=printable(account.login),
            uid=account.uid,
            gid=account.gid,
            home=_shown(account.home),
            mailbox=_shown(account.mailbox),
            quota=str(account.quota) or "none",
        )
    if entry is not None and defaults is not None and _log.shows(Kind.DEBUG_MORE):
        taken = Fields(_taken(account, entry, defaults))
        if taken:
            _log.debug(
                "defaults user={user} {taken}",
                kind=Kind.DEBUG_MORE,
                user=printable(account.login),
                taken=taken,
            )


def _attributes(entry: Entry) -> Iterator[tuple[str, str]]:
    """The attributes that make an account: whatever else a server may send is not shown."""
    for name in ACCOUNT_ATTRIBUTES:
        for value in entry.values(name):
            yield name, printable(value, _LONGEST)


def _taken(
    account: Account, entry: Entry, defaults: AccountDefaults
) -> Iterator[tuple[str, object]]:
    """The control files that say what the record does not."""
    for name, (number, file) in defaults.numbers.items():
        if number and not entry.values(name):
            yield file, number
    if not entry.values("homeDirectory"):
        (store,) = entry.values("mailMessageStore")
        if not store.startswith(b"/"):
            yield "ldapmessagestore", _shown(defaults.message_store or "")
    if not account.names_both:
        yield "defaultdelivery", _shown(account.delivery)


def _shown(text: str) -> str:
    return printable(text.encode("utf-8", "surrogateescape"), _LONGEST)
