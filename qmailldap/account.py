"""What the directory says of a user, as plain data, and the rules that make an account of it.

No I/O may enter here: every rule of reference.md, "The decision", that concerns one record is a
function from data to data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from qmailldap.printable import printable
from qmailldap.quota import Quota
from qmailldap.refusal import LoginRefused, Refusal

__all__ = [
    "ACCOUNT_ATTRIBUTES",
    "HIGHEST_ID",
    "LOWEST_ID",
    "PASSWORD_ATTRIBUTE",
    "Account",
    "AccountDefaults",
    "Entry",
    "RemoteAccount",
    "join_path",
    "parse_account",
    "parse_mail_host",
    "password_values",
    "path_is_allowed",
]

ACCOUNT_ATTRIBUTES = (
    "accountStatus",
    "mailHost",
    "mailMessageStore",
    "homeDirectory",
    "qmailUID",
    "qmailGID",
    "mailQuotaSize",
    "mailQuotaCount",
    "mailSizeMax",
)
"""The attributes that make an account; what a search asks for."""

PASSWORD_ATTRIBUTE = "userPassword"
"""Asked for besides the others where passwords are proved by hash."""

LOWEST_ID = 100
HIGHEST_ID = 2**32 - 2
"""Bounds of qmailUID and qmailGID: below are the system's own, above is the kernel's "no id"."""

_LARGEST_NUMBER = 2**63 - 1
_DISABLED = frozenset({b"noaccess", b"disabled", b"deleted"})
_ALLOWED_PATH = re.compile(r"[A-Za-z0-9@_./:=#-]+\Z")


@attrs.frozen
class Entry:
    """An entry of the directory: its DN and, by attribute name in lower case, its values."""

    dn: str
    # userPassword is among the values: none of them is shown.
    attributes: Mapping[str, tuple[bytes, ...]] = attrs.field(repr=False)

    def values(self, name: str) -> tuple[bytes, ...]:
        """All values of the attribute, which is named in any case; empty when there are none."""
        return self.attributes.get(name.lower(), ())


@attrs.frozen
class AccountDefaults:
    """What the control files say for records that do not say it themselves.

    ``uid`` and ``gid`` from ldapuid and ldapgid, ``message_store`` (ldapmessagestore, ending in a
    slash), ``quota`` from defaultquotasize and defaultquotacount, ``delivery`` the mailbox relative
    to home.
    """

    uid: int | None = None
    gid: int | None = None
    message_store: str | None = None
    quota: Quota = attrs.field(factory=Quota)
    delivery: str = "./Maildir/"

    @property
    def numbers(self) -> Mapping[str, tuple[int | None, str]]:
        """By attributes that are numbers: what stands for them, and the control file that says so.

        None where there is nothing, 0 for no limit.
        """
        return {
            "qmailUID": (self.uid, "ldapuid"),
            "qmailGID": (self.gid, "ldapgid"),
            "mailQuotaSize": (self.quota.size, "defaultquotasize"),
            "mailQuotaCount": (self.quota.count, "defaultquotacount"),
        }


@attrs.frozen
class Account:
    """Whom a login turned out to be; what a checker returns as avatar id.

    ``login`` is the name as the client gave it. ``home`` and ``mailbox`` are absolute paths;
    ``delivery`` is the mailbox as the record or the default words it, perhaps relative to home, and
    ``names_both`` says that the record named both. With ``asks_dot_qmail``, ~/.qmail may name
    another mailbox. ``mail_host`` is None where the record has none, ``max_message_size`` is in
    octets, 0 for no limit.
    """

    login: bytes
    dn: str
    uid: int
    gid: int
    home: str
    mailbox: str
    delivery: str
    names_both: bool
    quota: Quota
    max_message_size: int
    mail_host: str | None
    asks_dot_qmail: bool = False

    def environment(self) -> dict[bytes, bytes]:
        """The variables of programs that are run for the account: reference.md, "auth_pop"."""
        variables = {**_login_variables(self.login), b"HOME": _octets(self.home)}
        if self.names_both:
            variables[b"MAILDIR"] = _octets(self.delivery)
        if self.quota.is_set:
            variables[b"MAILDIRQUOTA"] = str(self.quota).encode("ascii")
        if self.max_message_size:
            variables[b"DATASIZE"] = b"%d" % self.max_message_size
        return variables


@attrs.frozen
class RemoteAccount:
    """Whom a login turned out to be, where ``mail_host`` keeps the mail: no more is known of it.

    ``password`` is the user's where the client has proved to know it without sending it: the member
    that has the mail must be told.
    """

    login: bytes
    dn: str
    mail_host: str
    password: bytes | None = attrs.field(default=None, repr=False)

    def environment(self) -> dict[bytes, bytes]:
        """The variables of programs that are run for the account."""
        return _login_variables(self.login)


def _login_variables(login: bytes) -> dict[bytes, bytes]:
    name = login.replace(b"\0", b"?")  # which no variable can hold
    return {b"USER": name, b"AUTHENTICATED": name}


def _octets(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def parse_account(login: bytes, entry: Entry, defaults: AccountDefaults) -> Account:
    """Judge the record: steps 3 to 7 of reference.md, "The decision", in their order.

    Raises `LoginRefused`: ACCOUNT_DISABLED by accountStatus, TEMPORARY for an attribute of two
    values, RECORD_INCORRECT for what is missing or malformed. To be called once the password is
    proved.
    """
    mail_host = parse_mail_host(entry)
    numbers = defaults.numbers
    uid = _id(entry, "qmailUID", *numbers["qmailUID"])
    gid = _id(entry, "qmailGID", *numbers["qmailGID"])
    home, delivery, names_both = _paths(entry, defaults)
    size = _number(entry, "mailQuotaSize")
    count = _number(entry, "mailQuotaCount")
    max_message_size = _number(entry, "mailSizeMax")
    return Account(
        login=login,
        dn=entry.dn,
        uid=uid,
        gid=gid,
        home=home,
        mailbox=join_path(home, delivery),
        delivery=delivery,
        names_both=names_both,
        quota=Quota(
            size=defaults.quota.size if size is None else size,
            count=defaults.quota.count if count is None else count,
        ),
        max_message_size=max_message_size or 0,
        mail_host=mail_host,
    )


def parse_mail_host(entry: Entry) -> str | None:
    """Which host keeps the mail: steps 3 and 4 of reference.md, "The decision".

    Raises `LoginRefused` as `parse_account` does, by accountStatus and mailHost alone: another host
    may have other defaults for all the rest, and judges it by itself.
    """
    status = _single(entry, "accountStatus")
    if status is not None and status.lower() in _DISABLED:
        raise LoginRefused(Refusal.ACCOUNT_DISABLED, f"accountStatus is {printable(status)}")
    mail_host = _single(entry, "mailHost")
    # A host name is ASCII; anything else matches no host of ours and resolves to none.
    return None if mail_host is None else mail_host.decode("ascii", "backslashreplace")


def password_values(entry: Entry) -> tuple[bytes, ...]:
    """All values of userPassword; the rules want one."""
    return entry.values(PASSWORD_ATTRIBUTE)


def path_is_allowed(path: str) -> bool:
    """Whether a path of a record may be used at all: its characters, no ``-`` first, no ``..``."""
    return (
        _ALLOWED_PATH.match(path) is not None
        and not path.startswith("-")
        and ".." not in path.split("/")
    )


def join_path(home: str, mailbox: str) -> str:
    """The absolute path of a mailbox that is relative to ``home`` unless it is absolute itself.

    Without a slash at the end and without ``.`` components: ``/home/joe`` and ``./Maildir/`` make
    ``/home/joe/Maildir``.
    """
    joined = mailbox if mailbox.startswith("/") else f"{home}/{mailbox}"
    return "/" + "/".join(part for part in joined.split("/") if part not in ("", "."))


def _single(entry: Entry, name: str) -> bytes | None:
    values = entry.values(name)
    if len(values) > 1:
        raise LoginRefused(Refusal.TEMPORARY, f"{name} has {len(values)} values")
    return values[0] if values else None


def _number(entry: Entry, name: str) -> int | None:
    value = _single(entry, name)
    if value is None:
        return None
    # 19 digits hold the largest number; without the bound, int() of a huge value takes long.
    if not value.isdigit() or len(value) > 19 or int(value) > _LARGEST_NUMBER:
        raise LoginRefused(Refusal.RECORD_INCORRECT, f"{name} is {printable(value)}")
    return int(value)


def _id(entry: Entry, name: str, default: int | None, control_file: str) -> int:
    number = _number(entry, name)
    if number is None:
        if default is None:
            raise LoginRefused(
                Refusal.RECORD_INCORRECT, f"no {name}, and no control file {control_file}"
            )
        return default
    if not LOWEST_ID <= number <= HIGHEST_ID:
        raise LoginRefused(
            Refusal.RECORD_INCORRECT, f"{name} is {number}, not {LOWEST_ID} to {HIGHEST_ID}"
        )
    return number


def _path(entry: Entry, name: str) -> str | None:
    value = _single(entry, name)
    if value is None:
        return None
    path = value.decode("latin-1")
    if not path_is_allowed(path):
        raise LoginRefused(Refusal.RECORD_INCORRECT, f"{name} is {printable(value)}")
    return path


def _paths(entry: Entry, defaults: AccountDefaults) -> tuple[str, str, bool]:
    """HOME, the mailbox as it is worded, whether the record names both: reference.md, step 6."""
    home = _path(entry, "homeDirectory")
    if home is not None and not home.startswith("/"):
        raise LoginRefused(Refusal.RECORD_INCORRECT, f"homeDirectory {home} is not absolute")
    store = _path(entry, "mailMessageStore")
    if home is not None and store is not None:
        return home, store, True
    if home is not None:
        return home, defaults.delivery, False
    if store is None:
        raise LoginRefused(Refusal.RECORD_INCORRECT, "neither homeDirectory nor mailMessageStore")
    if not store.startswith("/"):
        if defaults.message_store is None:
            raise LoginRefused(
                Refusal.RECORD_INCORRECT,
                f"mailMessageStore {store} is relative, and no control file ldapmessagestore",
            )
        store = defaults.message_store + store
    return store, defaults.delivery, False
