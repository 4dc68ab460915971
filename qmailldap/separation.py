"""The rights of root: kept by the broker, given up by the process that speaks to the network."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.python import usage

import qmailldap
from qmailldap.control import Control
from qmailldap.control.snapshot import NAMES
from qmailldap.loglevel import Log
from qmailldap.options import CannotStart, Options
from qmailldap.privsep.broker_process import BrokerProcess
from qmailldap.privsep.pool import Keepers
from qmailldap.privsep.rights import Identity, UnknownIdentity, become, find_identity

__all__ = ["Separation", "separation_from_root", "started_as_root", "tell_own_rights"]

_log = Log(namespace="qmailldap.service")


class Separation(Service):
    """The rights of root: kept by the broker, given up by this process before it reads anything.

    ``named`` says that somebody asked for just this identity; the control files and ``files`` can
    be read again later. ``grace`` are the seconds that the server has to end at the most.
    """

    name = "privilege separation"

    time_left: Callable[[], float] | None = None
    """Tells, at the end of the server, in how many seconds the broker and its children have to be
    gone; without it, these have what `BrokerProcess` gives them."""

    def __init__(
        self,
        reactor: Any,
        identity: Identity,
        named: bool,
        keepers: int,
        control: Control,
        files: Sequence[Path],
        grace: float,
    ) -> None:
        self._reactor = reactor
        self._identity = identity
        self._named = named
        self._log = Log(namespace="qmailldap.service")
        self.broker = BrokerProcess(
            reactor,
            keepers,
            control.dirmaker,
            self._broker_ended,
            files,
            control.directory,
            NAMES,
            grace,
        )
        self.keepers = Keepers(self.broker, reactor, keepers)

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self.broker.start()

    def startService(self) -> None:
        super().startService()
        ids = self._identity.uid, self._identity.gid
        if os.geteuid() == 0:
            become(self._identity)
        elif self._named and (os.geteuid(), os.getegid()) != ids:
            raise CannotStart(f"--user {self._identity}: twistd was told to become another user")
        self._log.info(
            "rights network={uid}:{gid} mailboxes=their-owners", uid=os.geteuid(), gid=os.getegid()
        )
        more = sorted({*os.getgroups()} - {os.getegid()})
        if more:
            # twistd's own --uid takes them over, and whoever is not root cannot give them up.
            self._log.warn(
                "rights groups={groups} are kept as well: --user would give them up",
                groups=",".join(map(str, more)),
            )
        for file in (qmailldap.__file__, usage.__file__, os.__file__):
            if not os.access(file, os.R_OK):
                self._log.warn(
                    "rights {user} cannot read {file}: what Python has not loaded by now cannot be;"
                    " better install where everyone may read, as below /opt",
                    user=self._identity.user,
                    file=file,
                )

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self.keepers.stop()
        return self.broker.stop(None if self.time_left is None else self.time_left())

    def _broker_ended(self, how: str) -> None:
        """Nobody's mailbox can be opened any more: a supervisor is to start the server again."""
        self._log.critical("rights {how}: the server cannot go on", how=how)
        atexit.register(_exit_with_an_error)
        if self.running:
            # It may be at its end already.
            with suppress(ReactorNotRunning):
                self._reactor.stop()


def _exit_with_an_error() -> None:
    # twistd knows no other way to end in order and yet with an exit code that is not 0.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def separation_from_root(
    options: Options, control: Control, files: Sequence[Path], reactor: Any
) -> Separation | None:
    """None where this process was not started as root, and has no rights to give up.

    Raises `CannotStart`.
    """
    user, group = options["user"] or "", options["group"] or ""
    try:
        if started_as_root():
            identity = find_identity(user, group)
            named = bool(user or group)
            keepers, grace = options["keepers"], options["grace"]
            return Separation(reactor, identity, named, keepers, control, files, grace)
        if user or group:
            identity = find_identity(user or str(os.geteuid()), group)
            if (identity.uid, identity.gid) != (os.geteuid(), os.getegid()):
                option = f"--user {user}" if user else f"--group {group}"
                raise UnknownIdentity(f"{option}: only root can become another user or group")
    except UnknownIdentity as error:
        raise CannotStart(str(error)) from None
    return None


def tell_own_rights() -> None:
    _log.info(
        "rights network={uid}:{gid} mailboxes=own-only passwd-users=no, not started as root",
        uid=os.geteuid(),
        gid=os.getegid(),
    )


def started_as_root() -> bool:
    return os.geteuid() == 0
