"""Whom a login is, decided by the server's own checker for one login and no more.

There is no history here to make the times of refusals alike, so they are answered on a coarser
grid than the server's.
"""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.cred.credentials import UsernamePassword
from twisted.internet.defer import Deferred, maybeDeferred

from qmailldap.account import Account, RemoteAccount
from qmailldap.checker import HashProof, LDAPChecker, Proof, RebindProof
from qmailldap.cluster import Cluster
from qmailldap.control import Control, ControlError
from qmailldap.directory import Directory
from qmailldap.local_users import LocalUsers
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import in_a_thread

__all__ = ["REFUSAL_GRID", "decide"]

REFUSAL_GRID = 2.0
"""Seconds; a refused login is answered after a multiple of them: more than the dearest of usual
hashes takes (bcrypt of cost 14), which nothing else here is as slow as."""


def _at_once(function: Any, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
    """An `Offload` that does not: nobody else waits for this process."""
    return maybeDeferred(function, *args, **kwargs)


async def decide(
    reactor: Any, control: Control, login: bytes, password: bytes, delivery: str
) -> Account | RemoteAccount:
    """Whom the login is; ``delivery`` is the mailbox of records that name none.

    Raises `LoginRefused`.
    """
    try:
        directory = Directory(reactor, control, connections=1, rebind_connections=1)
    except ControlError as error:
        raise LoginRefused(Refusal.CONFIGURATION, str(error)) from None
    proof: Proof = (
        RebindProof(directory, control.ldapbasedn, reactor)
        if control.ldaprebind
        else HashProof(_at_once, cleartext=control.ldapcleartext > 0)
    )
    checker = LDAPChecker(
        directory,
        proof,
        attrs.evolve(control.account_defaults, delivery=delivery),
        reactor,
        _local_users(reactor, control, delivery),
        Cluster(control).keeps,
        grid=REFUSAL_GRID,
    )
    try:
        found: Account | RemoteAccount = await checker.requestAvatarId(
            UsernamePassword(login, password)
        )
        return found
    finally:
        await directory.stop()


def _local_users(reactor: Any, control: Control, delivery: str) -> LocalUsers | None:
    """The users of passwd, whose passwords root alone can prove.

    In threads, as passwd may be a directory that does not answer.
    """
    if os.geteuid() != 0 or not control.ldaplocaldelivery:
        return None
    from qmailldap.privsep.shadow import check

    offload = in_a_thread(reactor)
    return LocalUsers(lambda *login: offload(check, *login), offload, delivery, reactor)
