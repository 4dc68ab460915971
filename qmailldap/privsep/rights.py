"""As whom the network process runs."""

from __future__ import annotations

import grp
import pwd

import attrs

from qmailldap.account import HIGHEST_ID
from qmailldap.privsep.giving_up import give_up_root

__all__ = ["USERS", "Identity", "UnknownIdentity", "become", "find_identity"]

USERS = ("qmaild", "nobody")
"""Who is taken where none is named: the original's user for what needs no rights, or anyone's."""


class UnknownIdentity(Exception):
    """There is no such user or group, or it has rights that it should not.

    The text begins with the option at fault, as the server has it.
    """


@attrs.frozen
class Identity:
    """A user and a group, by their names and ids."""

    user: str
    group: str
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{self.user}:{self.group}"


def find_identity(user: str = "", group: str = "") -> Identity:
    """The identity of a user, by name or number: of the first of `USERS` that exists by default.

    ``group``, by name or number, takes the place of the user's own. Raises `UnknownIdentity`.
    """
    entry = _find_user(user) if user else _first_user()
    gid = _find_group(group) if group else entry.pw_gid
    if entry.pw_uid == 0:
        raise UnknownIdentity(f"--user {user}: name one without root's rights, such as nobody")
    option = f"--group {group}" if group else f"--user {entry.pw_name}"
    if gid > HIGHEST_ID:
        raise UnknownIdentity(f"{option}: no group has such an id")
    if gid == 0:
        raise UnknownIdentity(f"{option}: the group is root's; name another by --group")
    return Identity(entry.pw_name, _group_name(gid), entry.pw_uid, gid)


def become(identity: Identity) -> None:
    """Give up all rights but those of ``identity``, in every thread and for ever.

    To be called as root. Raises ``OSError`` when that is refused.
    """
    give_up_root(identity.uid, identity.gid)


def _find_user(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        pass
    if not user.isdecimal() or len(user) > 10:
        raise UnknownIdentity(f"--user {user}: no user is called that")
    try:
        return pwd.getpwuid(int(user))
    except (KeyError, OverflowError):
        raise UnknownIdentity(f"--user {user}: no user has that id") from None


def _first_user() -> pwd.struct_passwd:
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise UnknownIdentity(f"--user: name one, as this host has neither {' nor '.join(USERS)}")


def _find_group(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group.isdecimal() and len(group) <= 10:
            return int(group)
        raise UnknownIdentity(f"--group {group}: no group is called that") from None


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
