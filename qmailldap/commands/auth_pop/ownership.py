"""Becoming the owner of the mail, and running programs as them."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Mapping
from typing import NoReturn

from qmailldap.account import Account
from qmailldap.loglevel import Log
from qmailldap.maildir import programs
from qmailldap.maildir.work import Work
from qmailldap.owners import mailbox_refused, not_its_owner, place_of
from qmailldap.printable import printable
from qmailldap.privsep.rights import Identity, become
from qmailldap.refusal import LoginRefused, Refusal

__all__ = ["PBS_LIMIT", "execute", "expect_program", "move_in", "run_pbs_tool"]

PBS_LIMIT = 30.0
"""Seconds that the program may take which notes down the client for POP before SMTP."""


def move_in(account: Account, dirmaker: str | None, log: Log) -> tuple[bytes, dict[bytes, bytes]]:
    """Become the account's owner, for ever, and go home; make what is missing of the mailbox.

    Gives the mailbox and the variables of programs that are run for the account. Raises
    `LoginRefused`.
    """
    uid = os.geteuid()
    if uid == 0:
        try:
            become(Identity(str(account.uid), str(account.gid), account.uid, account.gid))
        except OSError as error:
            raise LoginRefused(
                Refusal.TEMPORARY, f"uid {account.uid}, gid {account.gid}: {error.strerror}"
            ) from None
    elif uid != account.uid:
        raise not_its_owner(account, uid)
    try:
        mailbox, was_made = Work(place_of(account, dirmaker)).enter()
    except (OSError, MemoryError) as error:
        raise mailbox_refused(error, account) from None
    if was_made:
        log.info("mailbox path={path} made=what-was-missing", path=printable(mailbox))
    variables = account.environment()
    if os.fsdecode(mailbox) != account.mailbox:
        # The owner's .qmail names it; who is run next would look elsewhere.
        variables[b"MAILDIR"] = mailbox
    return mailbox, variables


def run_pbs_tool(pbstool: str, environment: Mapping[bytes, bytes], log: Log) -> None:
    """Run the program that lets the client send mail; the login does not depend on it."""
    if not pbstool or b"NOPBS" in environment:
        return
    try:
        code, _ = programs.run([os.fsencode(pbstool)], environment, PBS_LIMIT, keep_output=False)
    except programs.NotStarted as error:
        became = f"could not be started: {error.strerror}"
    else:
        if code == 0:
            return
        became = (
            f"took more than {PBS_LIMIT:g} seconds and was killed"
            if code is None
            else f"was killed by signal {-code}"
            if code < 0
            else f"failed (exit {code})"
        )
    log.warn(
        "pbs tool={tool} problem={problem}",
        tool=pbstool,
        problem=printable(became.encode("utf-8", "replace")),
    )


def expect_program(program: str) -> None:
    """Raises `LoginRefused` where there is no such program that may be run."""
    if shutil.which(program) is None:
        raise LoginRefused(
            Refusal.SUBPROGRAM_NOT_STARTED,
            f"{program} is not there, or may not be executed by uid {os.geteuid()}",
        )


def execute(subprogram: tuple[str, ...], environment: Mapping[bytes, bytes]) -> NoReturn:
    """Become the subprogram, which finds everything as this program did.

    Raises `LoginRefused`.
    """
    # Python ignores these for itself, and an ignored signal stays so.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        try:
            os.execvpe(subprogram[0], subprogram, environment)
        except OSError as error:
            path = shutil.which(subprogram[0])
            if error.errno != errno.ENOEXEC or path is None:
                raise
            # execvp(3), which the original uses, takes it for a script.
            os.execve("/bin/sh", ["sh", path, *subprogram[1:]], environment)
    except OSError as error:
        raise LoginRefused(
            Refusal.SUBPROGRAM_NOT_STARTED, f"{subprogram[0]}: {error.strerror}"
        ) from None
    raise AssertionError("a program that was executed has returned")
