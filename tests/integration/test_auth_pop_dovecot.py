"""auth_pop as the checkpassword program of a real Dovecot, which serves the mail itself."""

from __future__ import annotations

import poplib
import shlex

from .chain import ChainTestCase
from .clients import in_session, refusal_of
from .dovecot import Dovecot
from .hosts import require_root
from .mailboxes import MESSAGES, Maildir, as_lines
from .popup import AUTH_POP
from .server import environment
from .site import PASSWORD
from .users import Owner

ANN: Owner = (21001, 22001)
BOB: Owner = (21002, 22002)
EVE: Owner = (21003, 22003)

# As in docs/auth_pop.8.rst. Dovecot knows 1 as a wrong password, and 111 as a fault that is not the
# user's. Its own program wants to run as who has started it, unless it is told that others will do.
HOOK = """\
#!/bin/sh
export INSECURE_SETUID=1 reply="$1"
{auth_pop} --control {control} sh -c '
  mailbox=${{MAILDIR:-$0}}
  case $mailbox in /*) ;; *) mailbox=$HOME/$mailbox;; esac
  export userdb_mail="maildir:$mailbox" EXTRA=userdb_mail
  exec "$reply"' ./Maildir/
case $? in
  0) exit 0;;
  3|4) exit 1;;
  *) exit 111;;
esac
"""


class CheckpasswordTests(ChainTestCase):
    async def test_users_of_the_directory_log_in_at_dovecot(self) -> None:
        require_root()
        ann = self.user("ann", messages=[MESSAGES["plain"], MESSAGES["dots"]], owner=ANN)
        self.user("bob", messages=[MESSAGES["plain"]], owner=BOB)
        # Not ~/Maildir, as Dovecot is told to take where nobody says otherwise.
        eve = self.user("eve", owner=EVE, mailMessageStore="./Mail/")
        mail = Maildir(eve.path.parent / "Mail", EVE)
        mail.deliver_all([MESSAGES["dots"]])
        self.user("disabled", accountStatus="disabled")
        self.user("incorrect", homeDirectory="homes/joe")
        await self.start_directory()
        self.new_chain()
        hook = self.directory / "hook"
        variables = environment()
        auth_pop = ["env", f"PYTHONPATH={variables['PYTHONPATH']}", *AUTH_POP]
        control = self.directory / "chain" / "control"
        hook.write_text(HOOK.format(auth_pop=shlex.join(auth_pop), control=control))
        hook.chmod(0o755)
        dovecot = Dovecot(self.directory / "dovecot", PASSWORD, {}, checkpassword=hook)
        self.addCleanup(dovecot.stop)
        await dovecot.start()

        def session(pop: poplib.POP3) -> None:
            self.assertEqual(pop.retr(1)[1], as_lines(MESSAGES["plain"]))
            pop.dele(1)
            pop.quit()

        names = ann.new()
        await in_session(dovecot.port, "ann", PASSWORD, session)
        self.assertEqual([name.split(":")[0] for name in ann.new() + ann.cur()], names[1:])
        await in_session(dovecot.port, "bob", PASSWORD, session)

        def unique_id(pop: poplib.POP3) -> None:
            self.assertEqual(pop.retr(1)[1], as_lines(MESSAGES["dots"]))
            self.assertEqual(pop.uidl()[1], [f"1 {eves_name.split(':')[0]}".encode()])

        (eves_name,) = mail.new()
        await in_session(dovecot.port, "eve", PASSWORD, unique_id)
        refusals = {
            ("ann", "wrong"): "-ERR [AUTH] Authentication failed.",
            ("unheard-of", PASSWORD): "-ERR [AUTH] Authentication failed.",
            ("disabled", PASSWORD): "-ERR [AUTH] Authentication failed.",
            ("incorrect", PASSWORD): "-ERR [SYS/TEMP] Temporary authentication failure.",
        }
        found = await self.together(*(refusal_of(dovecot.port, *login) for login in refusals))
        for (login, expected), answer in zip(refusals.items(), found, strict=True):
            self.assertIn(expected, answer, f"{login}\n{dovecot.log}")
        self.assertNotIn(PASSWORD, dovecot.log)
