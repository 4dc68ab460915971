"""What docs/migration.md has an administrator compare, with the original's chain beside ours."""

from __future__ import annotations

import os
import re
import sys

from .chain import POP3, ChainTestCase
from .processes import run
from .server import PROJECT, environment
from .site import PASSWORD

_PAGE = PROJECT / "docs" / "migration.md"

# As qmail-pop3d: the file's name up to its colon. It has the messages from `POP3`.
_UIDL = r"""
        [Uu][Ii][Dd][Ll]*) printf '+OK \r\n'; at=0
          for each; do at=$((at + 1)); name=${each##*/}; printf '%d %s\r\n' $at "${name%%:*}"; done
          printf '.\r\n';;
"""
_OLD = (*POP3[:2], POP3[2].replace("[Qq][Uu]", _UIDL.strip() + "\n        [Qq][Uu]", 1), *POP3[3:])


def block(part: str) -> str:
    """The commands of the page in which this is."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", _PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (found,) = [text for text in blocks if part in text]
    return str(found)


class MigrationTests(ChainTestCase):
    async def compared(self, old: int, new: int, sample: str) -> list[str]:
        """What the page's commands print of two servers."""
        commands = re.sub(
            r"^OLD=.*$",
            f"OLD=127.0.0.1:{old} NEW=127.0.0.1:{new}",
            block("\nOLD="),
            flags=re.MULTILINE,
        )
        place = self.directory / "compared"
        place.mkdir(exist_ok=True)
        (place / "sample").write_text(sample)
        finished = await run(
            ["bash", "-uc", commands], 30, environment=environment(), directory=place
        )
        self.assertEqual(finished.errors, b"")
        return finished.output.decode().splitlines()

    async def test_unique_ids_of_old_and_new_are_compared_for_each_account_of_a_sample(
        self,
    ) -> None:
        odd = 'a "quoted\\ pass:word'
        self.user("ann", messages=[b"one\n", b"two\n"])
        self.user("bob", messages=[b"one\n"], password=odd)
        maildir = self.user("cid", messages=[b"one\n"])
        await self.start_directory()
        old = self.new_chain(subprogram=_OLD)
        server = self.new_server(self.slapd.address)
        await server.start()
        (message,) = (maildir.path / "new").iterdir()
        # A folder, which the original lists and this server does not.
        (message.parent / "1800000000.odd").mkdir()
        accounts = [("ann", PASSWORD), ("bob", odd), ("cid", PASSWORD)]
        printed = await self.compared(
            old.port, server.port, "".join(f"{login}:{password}\n" for login, password in accounts)
        )
        self.assertEqual(
            printed,
            [
                "ann: 2 messages, the same",
                "bob: 1 messages, the same",
                "cid: 1 messages, DIFFERENT: 2 1800000000.odd",
            ],
        )

    async def test_users_who_would_be_refused_are_found_without_their_passwords(self) -> None:
        self.user("ann")
        self.user("bob", accountStatus="disabled")
        await self.start_directory()
        server = self.new_server(self.slapd.address)
        place = self.directory / "looked-up"
        place.mkdir()
        (place / "users").write_text("ann\nbob\n")
        program = place / "qmailldap"
        command = "from qmailldap.commands import main; raise SystemExit(main())"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{command}" "$@"\n')
        program.chmod(0o755)
        finished = await run(
            ["bash", "-uc", block("shuf -n")],
            30,
            environment=environment(
                PATH=f"{place}:{os.environ['PATH']}", QMAILLDAP_CONTROL=str(server.control)
            ),
            directory=place,
        )
        self.assertEqual(
            [line.split() for line in finished.output.decode().splitlines()][:2],
            [["==", "bob"], ["verdict", "refused:", "account", "disabled"]],
        )
        self.assertNotIn("ann", finished.text)
