"""What auth_pop does in the owner's name before the session begins: homes, and POP before SMTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .chain import ChainTestCase
from .hosts import require_root
from .mailboxes import Maildir
from .server import environment
from .users import Owner

ANN: Owner = (21001, 22001)

NOT_CREATED = 61

IMPATIENT = [
    sys.executable,
    "-c",
    "from qmailldap.commands.auth_pop import main, ownership; ownership.PBS_LIMIT = 1; main()",
]
"""auth_pop that waits for a pbstool no longer than a test may take."""

TOLD = """\
#!/bin/sh
# Writes down all that it is told, and that it can find out by itself.
note=%s/$USER
# In another process: the shell would show its own redirections.
(readlink /proc/$$/fd/0 /proc/$$/fd/1; ls /proc/$$/fd) > $note &
wait
{
  id
  echo "arguments $*"
  echo "directory $(pwd)"
  env | sort
  cat
} >> $note 2>&1
"""


class HomeTests(ChainTestCase):
    def setUp(self) -> None:
        require_root()
        super().setUp()
        self.homes = self.open_folder("made")
        self.notes = self.open_folder("notes")

    def open_folder(self, name: str) -> Path:
        """A folder where everybody may make something, as that of a site may not."""
        folder = self.directory / name
        folder.mkdir()
        folder.chmod(0o1777)
        return folder

    def program(self, name: str, text: str) -> str:
        path = self.directory / f"{name}.sh"
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    async def test_a_missing_home_is_made_by_dirmaker_as_the_owner(self) -> None:
        plain, both = self.homes / "plain", self.homes / "both"
        self.user("plain", owner=ANN, homeDirectory=str(plain))
        store: dict[str, Any] = {"mailMessageStore": "in/", "mailQuotaSize": 9}
        self.user("both", owner=ANN, homeDirectory=str(both), **store)
        self.user("fails", owner=ANN, homeDirectory=str(self.homes / "fails"))
        await self.start_directory()
        told = TOLD % self.notes
        dirmaker = self.program("dirmaker", f'{told}test "$USER" != fails && mkdir -m 750 "$1"\n')
        popup = self.new_chain(control={"dirmaker": dirmaker})
        outcomes = await self.outcomes(popup, ["plain", "both", "fails"])
        for user, home, mailbox in (("plain", plain, "./Maildir/"), ("both", both, "in/")):
            self.assertEqual(outcomes[user].answer, "+OK \r\n+OK 0\r\n+OK \r\n")
            self.assertEqual(oct(home.stat().st_mode), oct(0o040750))
            for each in (home / mailbox, *(home / mailbox).iterdir()):
                self.assertEqual(oct(each.stat().st_mode), oct(0o040700))
            for each in (home, *home.rglob("*")):
                self.assertEqual((each.stat().st_uid, each.stat().st_gid), ANN)
            self.assertEqual(len([*(home / mailbox).iterdir()]), 3)
            note = (self.notes / user).read_text()
            self.assertRegex(note, rf"\nuid={ANN[0]}\b\S* gid={ANN[1]}\b\S* groups={ANN[1]}\n")
            self.assertIn(f"\narguments {home} {mailbox}\n", note)
            self.assertIn(f"\nHOME={home}\n", note)
            self.assertIn(f"\nAUTHENTICATED={user}\n", note)
            self.assertEqual("\nMAILDIR=in/\n" in note, user == "both")
            self.assertEqual("\nMAILDIRQUOTA=9S\n" in note, user == "both")
        self.assertEqual(outcomes["fails"].code, NOT_CREATED)
        self.assertIn(dirmaker, outcomes["fails"].errors)
        self.assertFalse((self.homes / "fails").exists())

    async def test_what_is_missing_of_a_maildir_is_made_and_a_link_to_one_is_followed(self) -> None:
        ann = self.user("ann", owner=ANN)
        elsewhere = Maildir(self.directory / "elsewhere" / "Maildir", ANN)
        for name in ("new", "cur"):
            (ann.path / name).rmdir()
        linked = self.user("linked", owner=ANN)
        for name in ("new", "cur", "tmp"):
            (linked.path / name).rmdir()
        linked.path.rmdir()
        linked.path.symlink_to(elsewhere.path)
        elsewhere.deliver(b"Subject: there\n")
        await self.start_directory()
        outcomes = await self.outcomes(self.new_chain(), ["ann", "linked"])
        self.assertEqual(outcomes["ann"].answer, "+OK \r\n+OK 0\r\n+OK \r\n")
        self.assertEqual(outcomes["linked"].answer, "+OK \r\n+OK 1\r\n+OK \r\n")
        for name in ("new", "cur", "tmp"):
            status = (ann.path / name).stat()
            self.assertEqual((oct(status.st_mode), status.st_uid), (oct(0o040700), ANN[0]))

    async def test_pop_before_smtp_is_told_before_the_session_begins(self) -> None:
        ann = self.user("ann", owner=ANN)
        await self.start_directory()
        told = TOLD % self.notes
        tool = self.program("pbstool", f"{told}echo output; echo its complaint >&2; exit 3\n")
        show = ("sh", "-c", f"cat {self.notes}/ann", "sh", "./Maildir/")
        popup = self.new_chain(options=("-d", tool), subprogram=show)
        outcome = await self.outcome(popup, "ann", commands="not for it\r\n")
        self.assertEqual(outcome.code, 0)
        lines = outcome.answer.splitlines()
        self.assertEqual(lines[:2], ["/dev/null", "/dev/null"])
        # Not the login's pipe, above all. Shells keep what they read at 10 or 255.
        end = next(number for number, line in enumerate(lines) if line.startswith("uid="))
        self.assertEqual({*lines[2:end]} - {"10", "255"}, {"0", "1", "2"})
        self.assertRegex(lines[end], rf"^uid={ANN[0]}\b\S* gid={ANN[1]}\b\S* groups={ANN[1]}$")
        self.assertEqual(lines[end + 1 : end + 3], ["arguments ", f"directory {ann.path.parent}"])
        for each in ("USER=ann", f"HOME={ann.path.parent}", "TCPREMOTEIP=127.0.0.1"):
            self.assertIn(each, lines)
        self.assertNotIn("not for it", outcome.answer)
        self.assertRegex(outcome.errors, f"auth_pop: .*{tool}.* 3")

    async def test_the_login_does_not_depend_on_it(self) -> None:
        self.user("ann", owner=ANN)
        await self.start_directory()
        touched = self.notes / "touched"
        killed = self.program("killed", "#!/bin/sh\nkill -9 $$\n")
        hanging = self.program("hanging", f"#!/bin/sh\necho $$ > {touched}-pid\nexec sleep 1000\n")
        touching = self.program("touching", f"#!/bin/sh\n: > {touched}\n")
        chains = {
            "/no/such/tool": self.new_chain("missing", options=("-d", "/no/such/tool")),
            killed: self.new_chain("killed", options=("-d", killed)),
            hanging: self.new_chain("hanging", options=("-d", hanging), program=IMPATIENT),
            # Nothing is to be said of these.
            "": self.new_chain("none", options=("-d", "")),
            touching: self.new_chain(
                "off", options=("-d", touching), variables=environment(NOPBS="")
            ),
        }
        outcomes = await self.together(*(self.outcome(each, "ann") for each in chains.values()))
        for tool, outcome in zip(chains, outcomes, strict=True):
            self.assertEqual((outcome.code, outcome.answer), (0, "+OK \r\n+OK 0\r\n+OK \r\n"))
            complains = tool not in ("", touching)
            self.assertEqual(outcome.errors.count("\n"), 1 + complains, outcome.errors)
            self.assertEqual(f"tool={tool} " in outcome.errors, complains)
        self.assertFalse(touched.exists())
        pid = int(touched.with_name("touched-pid").read_text())
        self.assertFalse(Path(f"/proc/{pid}").exists())
