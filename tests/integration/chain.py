"""A site served by qmail's chain: tcpserver, qmail-popup, auth_pop, and a small qmail-pop3d.

Subprograms are of the shell, which is everywhere and reads not an octet more than it was told to:
the owner of a mailbox may not be able to run this Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from twisted.internet.threads import deferToThread

from . import clients
from .clients import Conversation
from .popup import AUTH_POP, Login, Popup, said_by_popup
from .processes import wait_until
from .server import environment, write_control
from .site import PASSWORD, SiteTestCase
from .slapd import SERVICE_DN, SERVICE_PASSWORD
from .users import SUFFIX

__all__ = ["POP3", "SLEEPER", "ChainTestCase", "Outcome"]

POP3 = (
    "sh",
    "-c",
    r"""
    cd "${MAILDIR:-$1}" || { printf -- '-ERR no maildir\r\n'; exit 1; }
    set --
    for each in new/* cur/*; do test -e "$each" && set -- "$@" "$each"; done
    printf '+OK \r\n'
    while read -r command number; do
      case $command in
        [Ss][Tt][Aa][Tt]*) printf '+OK %d\r\n' $#;;
        [Rr][Ee][Tt][Rr]) number=${number%?}; shift $((number - 1))
          printf '+OK \r\n'; sed -e 's/^\./../' -e "s/$/$(printf '\r')/" "$1"; printf '.\r\n';;
        [Qq][Uu][Ii][Tt]*) printf '+OK \r\n'; exit 0;;
        *) printf -- '-ERR unimplemented\r\n';;
      esac
    done
    """,
    "pop3",
    "./Maildir/",
)
"""Serves the Maildir of MAILDIR, else of its last argument, as qmail-pop3d does: STAT, RETR."""

SLEEPER = ("cat", "-", "./Maildir/")
"""Waits for the end of standard input, so that it can be looked at."""


@attrs.frozen
class Outcome:
    """What the client was answered to PASS and later, the exit code, and standard error."""

    answer: str
    code: int
    errors: str


class ChainTestCase(SiteTestCase):
    """Tests of auth_pop against one directory, `slapd`.

    Whatever they do, no process is left, and there is neither a traceback nor a secret in what was
    written to standard error.
    """

    timeout = 90
    control: Mapping[str, str] = {}
    """Further control files of all its chains: how passwords are proved, say."""

    def new_chain(
        self,
        name: str = "chain",
        *,
        control: Mapping[str, str | None] | None = None,
        options: Sequence[str] = (),
        subprogram: Sequence[str] = POP3,
        before: Sequence[str] = (),
        program: Sequence[str] = AUTH_POP,
        variables: Mapping[str, str] | None = None,
    ) -> Popup:
        """A chain with control files of its own, None leaves one out; `slapd` is its directory.

        ``options`` are auth_pop's, ``before`` is put before the ``program``. ``variables`` are all
        of the environment, by default that of this process.
        """
        place = self.directory / name
        files = {
            "ldapserver": self.slapd.address,
            "ldapbasedn": SUFFIX,
            "ldaplogin": SERVICE_DN,
            "ldappassword": SERVICE_PASSWORD,
            "ldaplocaldelivery": "0",
            **self.control,
            **(control or {}),
        }
        write_control(place / "control", {k: v for k, v in files.items() if v is not None})
        settings = ["--control", str(place / "control"), *options]
        arguments = [*before, *program, *settings, *subprogram]
        popup = Popup(place, arguments, environment() if variables is None else variables)
        self.addCleanup(self._close, popup)
        return popup

    async def start_directory(self) -> None:
        """Start `slapd` with all users declared so far."""
        self.slapd = self.new_slapd()
        await self.slapd.start()

    async def outcome(
        self,
        popup: Popup,
        user: str,
        password: str = PASSWORD,
        *,
        commands: str = "STAT\r\nQUIT\r\n",
    ) -> Outcome:
        """Log in and send the commands, all at once; gives what follows the answer to USER.

        To be called for one user once at a time.
        """
        octets = f"USER {user}\r\nPASS {password}\r\n{commands}".encode()

        def session(connection: Conversation) -> bytes:
            connection.send(octets)
            connection.line()
            return connection.rest()

        answer = await clients.converse(popup.port, session)
        login = popup.login_of(user)
        await wait_until(login.has_ended, 10, f"the end of {user}'s auth_pop")
        assert login.code is not None
        return Outcome(answer.decode("utf-8", "replace"), login.code, login.errors)

    async def outcomes(self, popup: Popup, users: Sequence[str]) -> dict[str, Outcome]:
        """The outcomes of users with the usual password, at the same time, by name."""
        found = await self.together(*(self.outcome(popup, user) for user in users))
        return dict(zip(users, found, strict=True))

    async def assert_refused(
        self, popup: Popup, expected: Mapping[str, int], password: str = PASSWORD
    ) -> dict[str, Outcome]:
        """Each user is refused with that exit code, and so the client is told by qmail-popup."""
        tries = [self.outcome(popup, user, password) for user in expected]
        found = dict(zip(expected, await self.together(*tries), strict=True))
        for user, code in expected.items():
            shown = found[user]
            self.assertEqual((shown.code, shown.answer.encode()), (code, said_by_popup(code)), user)
        return found

    async def asleep(
        self, popup: Popup, user: str, password: str = PASSWORD
    ) -> tuple[Login, Conversation]:
        """Log in where `SLEEPER` is the subprogram; gives it, and the client, once it runs."""
        connection = await deferToThread(Conversation, popup.port)
        self.addCleanup(connection.hang_up)
        octets = f"USER {user}\r\nPASS {password}\r\n".encode()
        await deferToThread(connection.send, octets)
        await deferToThread(connection.line)
        await self.is_executed(popup, user)
        return popup.login_of(user), connection

    async def is_executed(self, popup: Popup, user: str, name: str = "cat") -> Login:
        """Wait until the program of that name has taken the place of the user's auth_pop."""

        def executed() -> bool:
            logins = [login for login in popup.logins if login.user == user]
            if logins and logins[-1].has_ended():
                raise AssertionError(f"{user}: ended with {logins[-1].code}\n{logins[-1].errors}")
            return bool(logins) and logins[-1].name == name

        await wait_until(executed, 20, f"{name} to run for {user}")
        return popup.login_of(user)

    async def _close(self, popup: Popup) -> None:
        await deferToThread(popup.close)
        self.assertEqual(popup.faults, [])
        for login in popup.logins:
            self.assertFalse(login.is_left_over(), login.user)
            errors = login.errors
            self.assertNotRegex(errors, r"Traceback|Unhandled [Ee]rror", login.user)
            for secret in self.secrets:
                self.assertNotIn(secret, errors)
