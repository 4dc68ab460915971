"""The findings of a lookup for a person to read: a line for each fact, the verdict last.

Whatever comes from the directory or a disk is shown in printable ASCII.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping

from qmailldap.commands.lookup.findings import (
    CLEAR_TEXT,
    Attribute,
    Findings,
    Mail,
    Mailbox,
    Names,
    Password,
    Search,
)
from qmailldap.control import ServerAddress
from qmailldap.maildir.inspection import Inspection, QuotaUse, Seen
from qmailldap.printable import printable
from qmailldap.quota import Quota

__all__ = ["as_lines"]

_WIDTH = 18
_LONGEST = 1000
"""Characters of one fact that are shown."""

_FOUND_BY = {"user": "search", "mail": "search by mail", "filter": "search by filter"}
_MADE = ", would be made at the login"
_PROOFS = {
    "hash": "proved by its hash",
    "bind": "proved by a bind (ldaprebind), its value not asked for",
    "shadow": "proved by shadow",
}


def as_lines(found: Findings) -> Iterator[str]:
    """The lines, without their newlines."""
    if found.login is not None:
        yield _line("login", _value(found.login))
    for search in found.searches:
        yield from _search(search)
    if found.passwd is not None:
        yield _line("passwd", "knows the user" if found.passwd else "does not know the user either")
    if found.dn is not None:
        yield _line("entry", found.dn)
    for attribute in found.attributes:
        yield _attribute(attribute)
    if found.password is not None:
        yield _line("password", _password(found.password))
    if found.mail is not None:
        yield _line("mail", _mail(found.mail))
    if found.mailbox is not None:
        yield from _mailbox(found.mailbox)
        if found.mailbox.problem not in ("", found.verdict.reason):
            yield _line("problem", found.mailbox.problem)
    for note in found.notes:
        yield _line("note", note)
    yield from _verdict(found)


def _search(search: Search) -> Iterator[str]:
    base = search.base or "no base, as there is no ldapbasedn"
    yield _line(_FOUND_BY[search.by], f"{search.filter} below {base}")
    if search.server is None or search.seconds is None:
        yield _line("answered by", f"none: {search.problem}")
        return
    yield _line("answered by", f"{search.server}, in {search.seconds * 1000:.0f} ms")
    for trouble in search.troubles:
        yield _line("asked before", trouble)
    if not search.entries:
        yield _line("found", "no entry")
    elif len(search.entries) > 1:
        yield _line("found", "two entries, or more")
    if len(search.entries) > 1 or search.by != "user":
        for entry in search.entries:
            yield _line("", entry)


def _attribute(attribute: Attribute) -> str:
    if not attribute.values:
        text = "not set" + (f": {attribute.meaning}" if attribute.meaning else "")
    else:
        text = ", ".join(map(_value, attribute.values))
        text += f" ({attribute.meaning})" if attribute.meaning else ""
    return _line(attribute.name, text)


def _password(password: Password) -> str:
    by = _PROOFS[password.by]
    if password.schemes and set(password.schemes) == {CLEAR_TEXT}:
        by = "compared as it is"
    parts = [", ".join([*password.schemes, by])]
    if password.problem:
        parts.append(password.problem)
    if password.right is not None:
        parts.append("right" if password.right else "wrong")
    elif not password.problem:
        parts.append("not tried")
    return "; ".join(parts)


def _mail(mail: Mail) -> str:
    if mail.is_here:
        return "here"
    where = ServerAddress(mail.host, mail.port)
    addresses = ", ".join(mail.addresses) or "no address"
    return f"on {mail.mail_host}, reached at {where}: {addresses}"


def _mailbox(mailbox: Mailbox) -> Iterator[str]:
    yield _line("ids", _ids(mailbox.uid, mailbox.gid, mailbox.names))
    looked, found = mailbox.looked, mailbox.inspection
    if not looked.is_owner:
        yield _line(
            "looked at as",
            f"{_ids(looked.uid, looked.gid, mailbox.names)}, who may not see all:"
            " only root can look as the owner",
        )
    if found is None:
        yield _line("home", _value(mailbox.home))
        yield _line("mailbox", _value(mailbox.mailbox))
        return
    yield _line("home", _home(mailbox, found))
    text = _seen(found.mailbox, mailbox)
    text += _MADE if found.mailbox.path in found.makes else ""
    text += ", named by ~/.qmail" if found.by_dot_qmail else ""
    yield _line("mailbox", text)
    for folder in found.folders:
        # What is as it should be is not worth a line.
        if not _is_right(folder, mailbox):
            made = _MADE if folder.path in found.makes else ""
            yield _line("", _seen(folder, mailbox) + made)
    if found.messages is not None:
        messages = found.messages
        yield _line(
            "messages",
            f"{messages.new + messages.cur}, {messages.octets} octets"
            f" ({messages.new} in new, {messages.cur} in cur)",
        )
    yield _line("quota", _quota(mailbox.quota, found.quota))
    if found.quota is not None:
        yield _line("maildirsize", _quota_file(mailbox.quota, found.quota))


def _home(mailbox: Mailbox, found: Inspection) -> str:
    text = _seen(found.home, mailbox)
    if found.makes_home:
        text += f"{_MADE} by dirmaker {_value(mailbox.dirmaker or '')}"
    return text


def _seen(seen: Seen, mailbox: Mailbox) -> str:
    if seen.kind == "other" and seen.link:
        return f"{_value(seen.path)}: {seen.problem}; it leads to {_value(seen.link)}"
    text = f"{_value(seen.path)}: {seen.kind}"
    if seen.problem:
        text += f" ({seen.problem})"
    if seen.kind in ("directory", "file", "other"):
        text += f", mode {seen.mode:04o}, owner {_ids(seen.uid, seen.gid, mailbox.names)}"
        # Another group is no fault where the owner may do all.
        if seen.uid != mailbox.uid:
            text += f", and not {_id(mailbox.uid, mailbox.names.users)}"
        if seen.kind == "directory" and seen.uid == mailbox.uid and not _all_rights(seen.mode):
            text += ", who may not do all there"
    if seen.link:
        text += f", by a symbolic link to {_value(seen.link)}"
    return text


def _is_right(folder: Seen, mailbox: Mailbox) -> bool:
    is_owners = folder.uid == mailbox.uid
    return folder.kind == "directory" and is_owners and _all_rights(folder.mode)


def _ids(uid: int, gid: int, names: Names) -> str:
    return f"{_id(uid, names.users)}:{_id(gid, names.groups)}"


def _id(number: int, names: Mapping[int, str]) -> str:
    return f"{names[number]}({number})" if number in names else str(number)


def _all_rights(mode: int) -> bool:
    return mode & stat.S_IRWXU == stat.S_IRWXU


def _quota(quota: Quota, use: QuotaUse | None) -> str:
    limits = []
    if quota.size:
        limits.append(f"{quota.size} octets")
    if quota.count:
        limits.append(f"{quota.count} messages")
    text = ", ".join(limits) or "none"
    if use is None or use.octets is None or use.messages is None:
        return text
    text += f"; used: {use.octets} octets{_share(use.octets, quota.size)}"
    return f"{text}, {use.messages} messages{_share(use.messages, quota.count)}"


def _share(used: int, limit: int) -> str:
    return f" ({100 * used / limit:.0f} %)" if limit else ""


def _quota_file(quota: Quota, use: QuotaUse) -> str:
    parts = []
    if use.definition is None and not use.problem:
        parts.append("not there")
    elif use.definition is not None:
        parts.append(f"for a quota of {use.definition or 'nothing'}")
        if quota.is_set and use.definition != str(quota):
            parts.append("not the account's")
        if use.stored_octets is None or use.stored_messages is None:
            parts.append("its sum cannot be used")
        else:
            parts.append(f"says {use.stored_octets} octets, {use.stored_messages} messages")
    if use.problem:
        parts.append(use.problem)
    return "; ".join(parts)


def _verdict(found: Findings) -> Iterator[str]:
    verdict = found.verdict
    yield _line("verdict", _judged(found))
    if verdict.refused is not None:
        reason = verdict.reason
        if reason:
            yield _line("", reason)
        if verdict.refused.shown is not verdict.refused.refusal:
            yield _line("", f"the client is told: {verdict.refused.shown.outcome.text}")
    yield _line("exit code", str(verdict.exit_code))


def _judged(found: Findings) -> str:
    verdict = found.verdict
    if found.finds_nobody:
        return "finds nobody"
    if verdict.refused is not None:
        return f"refused: {verdict.refused.refusal.outcome.text}"
    where = f"forwarded to {verdict.forwarded_to}" if verdict.forwarded_to else "let in"
    parts = [f"would be {where}"]
    if not verdict.proved:
        parts.append("with the right password")
    if verdict.condition:
        parts.append(verdict.condition)
    if not verdict.is_complete:
        parts.append("as far as can be seen")
    text = ", ".join(parts)
    if verdict.forwarded_to:
        text += "; whether that member lets the user in was not tried"
    return text


def _value(text: str) -> str:
    """A value that is told apart from what is said of it."""
    return printable(text.encode("utf-8", "surrogateescape"), _LONGEST)


def _line(label: str, text: str) -> str:
    safe = "".join(
        each
        if " " <= each <= "~"
        else "".join(f"\\x{octet:02x}" for octet in each.encode("utf-8", "surrogateescape"))
        for each in text[:_LONGEST]
    )
    if len(text) > _LONGEST:
        safe += "..."
    return f"{label:{_WIDTH}}{safe}".rstrip()
