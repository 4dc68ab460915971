"""What is made of each attribute that counts, in words: by the rules of `account` and `cluster`."""

from __future__ import annotations

from qmailldap.account import ACCOUNT_ATTRIBUTES, Entry, parse_mail_host
from qmailldap.cluster import Cluster
from qmailldap.commands.lookup.findings import Attribute, as_text
from qmailldap.control import Control
from qmailldap.refusal import LoginRefused, Refusal

__all__ = ["attributes_of"]

_LIMITS = ("mailQuotaSize", "mailQuotaCount", "mailSizeMax")

_NUMBERS = ("qmailUID", "qmailGID", *_LIMITS)


def attributes_of(entry: Entry, control: Control, cluster: Cluster) -> tuple[Attribute, ...]:
    """All of `ACCOUNT_ATTRIBUTES`, in their order, whether the entry has them or not."""
    return tuple(_attribute(name, entry, control, cluster) for name in ACCOUNT_ATTRIBUTES)


def _attribute(name: str, entry: Entry, control: Control, cluster: Cluster) -> Attribute:
    values = tuple(map(as_text, entry.values(name)))
    if len(values) > 1:
        count = f"{len(values)} values, and one is allowed"
        return Attribute(name, values, None, "directory", count)
    if values:
        meaning = ""
        if name == "accountStatus":
            meaning = _status(entry)
        elif name == "mailHost":
            meaning = _mail_host(entry, control, cluster)
        elif name == "mailMessageStore":
            meaning = _store(entry, values[0], control)
        elif name in _LIMITS and values == ("0",):
            meaning = "no limit"
        used = int(values[0]) if name in _NUMBERS and _is_number(values[0]) else values[0]
        return Attribute(name, values, used, "directory", meaning)
    return Attribute(name, (), *_default(name, entry, control))


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 19


def _status(entry: Entry) -> str:
    try:
        parse_mail_host(entry)
    except LoginRefused as refused:
        if refused.refusal is Refusal.ACCOUNT_DISABLED:
            return "may not log in"
    return "may log in"


def _mail_host(entry: Entry, control: Control, cluster: Cluster) -> str:
    if not control.ldapcluster:
        return "not looked at, as ldapcluster is 0"
    name = entry.values("mailHost")[0].decode("ascii", "backslashreplace")
    which = "this" if cluster.keeps(name) else "another"
    return f"{which} host, as this one is {cluster.own_names}"


def _store(entry: Entry, store: str, control: Control) -> str:
    if entry.values("homeDirectory"):
        return "the mailbox"
    if store.startswith("/"):
        return "the home"
    if control.ldapmessagestore is None:
        return "relative, and there is no ldapmessagestore"
    return f"the home, below {control.ldapmessagestore}, from ldapmessagestore"


def _default(name: str, entry: Entry, control: Control) -> tuple[str | int | None, str, str]:
    """What counts where the entry has no value, where it is from, and what it means."""
    defaults = control.account_defaults
    number, file = defaults.numbers.get(name, (0, ""))
    if number is None:
        return None, "default", f"missing, and there is no {file}"
    if number:
        return number, file, f"{number}, from {file}"
    if name in _LIMITS:
        return 0, "default", "no limit"
    meaning = ""
    if name == "accountStatus":
        meaning = "may log in"
    elif name == "mailHost":
        meaning = "the mail is here"
    elif name == "mailMessageStore" and entry.values("homeDirectory"):
        return defaults.delivery, "defaultdelivery", f"{defaults.delivery}, the default delivery"
    elif name == "homeDirectory" and entry.values("mailMessageStore"):
        meaning = "mailMessageStore is the home"
    else:
        meaning = "missing, homeDirectory and mailMessageStore both"
    return None, "default", meaning
