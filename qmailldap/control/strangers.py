"""Files in the control directory that nobody reads although they look like control files.

A name that is almost that of a control file is most often one, misspelt; a server would start and
use a default. Those of qmail and of qmail-ldap's other programs are none of our business.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from difflib import get_close_matches

import attrs

from qmailldap.control.files import FILES

__all__ = ["Stranger", "strangers"]

_OURS = {file.name: file for file in FILES}

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
# ldapserver~, ldapserver.bak, ldapserver-2024, #ldapserver#; the longest name counts.
_NAMES = "|".join(map(re.escape, sorted(_BY_PLAIN.values(), key=len, reverse=True)))
_COPY = re.compile(rf"#?({_NAMES})[^A-Za-z0-9_].*", re.DOTALL)
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
    for name in sorted(there - _OURS.keys() - _OF_OTHERS):
        if name.startswith("."):
            continue
        if name in _GIVEN_UP:
            now = _GIVEN_UP[name]
            instead = f"; see {now}" if now else ""
            yield Stranger(name, f"is not read: qmail-ldap has given it up{instead}")
            continue
        like, is_copy = _meant_for(name)
        if like not in _OURS:
            continue
        if is_copy:
            problem = f"is not read: a copy of {like}?"
        elif like in there:
            problem = f"is not read: {like} is"
        else:
            problem = f"is not read: is it meant for {like}, which is missing?"
        if _is_secret(like) and _can_be_read_by_everyone(os.path.join(directory, name)):
            problem += " It can be read by everyone"
        yield Stranger(name, problem, like)


def _meant_for(name: str) -> tuple[str | None, bool]:
    """Which file a name looks like, and whether as a copy that somebody has put aside."""
    copy = _COPY.fullmatch(name)
    if copy:
        return copy[1], True
    plain = _plain(name)
    # An empty one is like nothing.
    close = get_close_matches(plain, _BY_PLAIN, 1, _CLOSE) if 0 < len(plain) <= _LONGEST else []
    return (_BY_PLAIN[close[0]] if close else None), False


def _is_secret(name: str) -> bool:
    return _OURS[name].secret or name == "cert.pem"


def _can_be_read_by_everyone(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False
