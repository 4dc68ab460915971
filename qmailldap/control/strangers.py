"""Files in the control directory that nobody reads although they look like control files.

A name that is almost that of a control file is most often one, misspelt; a server would start and
use a default. One that begins as ours do, or is that of an attribute, is a wish nobody hears. Those
of qmail and of qmail-ldap's other programs are none of our business.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from difflib import get_close_matches

import attrs

from qmailldap.account import ACCOUNT_ATTRIBUTES, PASSWORD_ATTRIBUTE
from qmailldap.control.files import FILES

__all__ = ["Stranger", "strangers"]

_OURS = frozenset(file.name for file in FILES)
_SECRET = {file.name for file in FILES if file.secret} | {"cert.pem"}

# qmail-control(5), QLDAPINSTALL and the sources of qmail-ldap, and what it says of TLS.
_OF_OTHERS = frozenset(
    """
    Makefile aliasdomains badmailfrom badmailfrom-unknown badrcptto bigbrother bouncefrom
    bouncehost bouncemaxbytes concurrencylocal concurrencyremote custombouncetext databytes
    defaultdomain defaulthost doublebouncehost doublebounceto envnoathost goodmailaddr goodmailfrom
    helohost idhost ldapgrouplogin ldapgrouppassword localiphost locals locals.cdb maxrcptcount
    morercpthosts morercpthosts.cdb morercpthosts.tmp outgoingip pbscachesize pbsenv pbsip pbsport
    pbssecret pbsservers pbstimeout percenthack plusdomain qmqpcip qmqpservers queuelifetime
    quotawarning rblonlyheader rbllist rcpthosts rcpthosts.cdb relaymailfrom remotecert rsa512.new
    rsa512.pem signatures smtpcert smtpclustercookie smtpgreeting smtproutes tarpitcount
    tarpitdelay timeoutconnect timeoutremote timeoutsmtpd tlsciphers tlsdheparams tlsremoteciphers
    virtualdomains
    """.split()  # noqa: SIM905  # a line for each would be a page
)

# Of the original's older versions; its later ones ask to have them removed.
_GIVEN_UP = {
    "ldapdefaultquota": "defaultquotasize and defaultquotacount",
    "ldappasswdappend": "",
    "ldapusername": "",
}


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


_BY_PLAIN = {_plain(name): name for name in (*_OF_OTHERS, *_OURS)}
# ldapserver~, ldapserver.bak, ldapserver-2024, #ldapserver#, .ldapserver.swp, .#ldapserver; the
# longest name counts.
_NAMES = "|".join(map(re.escape, sorted(_BY_PLAIN.values(), key=len, reverse=True)))
_COPY = re.compile(rf"[.#]*({_NAMES})(?:[^A-Za-z0-9_].*)?", re.DOTALL)
_OUR_KIND = re.compile(r"[.#]*(?:ldap|pop3).*", re.DOTALL | re.IGNORECASE)
_ATTRIBUTES = {name.lower(): name for name in (*ACCOUNT_ATTRIBUTES, PASSWORD_ATTRIBUTE)}
_CLOSE = 0.8
_LONGEST = 40
"""Longer names are compared with nothing: that takes its time."""


@attrs.frozen
class Stranger:
    """A file that is not read. ``like`` is the control file that it may be meant for, if any."""

    name: str
    problem: str
    like: str | None = None


def strangers(directory: str) -> Iterator[Stranger]:
    """What in the directory looks like a control file and is none, by name.

    Raises ``OSError`` when the directory cannot be listed.
    """
    there = set(os.listdir(directory))
    for name in sorted(there - _OURS - _OF_OTHERS):
        like, is_copy = _meant_for(name)
        problem = _problem(name, like, is_copy, like in there)
        if problem is None:
            continue
        if like in _SECRET and _can_be_read_by_everyone(os.path.join(directory, name)):
            problem += ". This one can be read by everyone"
        yield Stranger(name, f"is not read; {problem}", like if like in _OURS else None)


def _problem(name: str, like: str | None, is_copy: bool, like_is_there: bool) -> str | None:
    """What to say of a name, None if nothing."""
    if name in _GIVEN_UP:
        now = _GIVEN_UP[name]
        return f"qmail-ldap has given it up{now and ': see '}{now}"
    if like in _OURS:
        if is_copy:
            return f"it seems to be a copy of {like}"
        if like_is_there:
            return f"the file of that meaning is {like}"
        return f"it may be meant for {like}, which is missing"
    if like is None and name.lower() in _ATTRIBUTES:
        return f"{_ATTRIBUTES[name.lower()]} is an attribute of records, and no control file"
    if like is None and _OUR_KIND.fullmatch(name):
        return "no control file has this name"
    return None


def _meant_for(name: str) -> tuple[str | None, bool]:
    """Which file a name looks like, and whether as a copy that somebody has put aside."""
    if name in _GIVEN_UP:
        return None, False
    copy = _COPY.fullmatch(name)
    if copy:
        return copy[1], True
    plain = _plain(name)
    # An empty one is like nothing.
    close = get_close_matches(plain, _BY_PLAIN, 1, _CLOSE) if 0 < len(plain) <= _LONGEST else []
    return (_BY_PLAIN[close[0]] if close else None), False


def _can_be_read_by_everyone(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False
