"""What the demo lays out on disk, and that it never does so twice."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from email import message_from_bytes
from email.policy import default
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.commands import main
from qmailldap.commands.demo import prepare
from qmailldap.commands.demo_messages import MAIL
from qmailldap.control import ControlError, read_control


class PrepareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        prepare(self.directory)

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for path in self.directory.rglob("*")
            if path.is_file()
        }

    def test_the_control_files_can_be_read_once_the_directory_listens(self) -> None:
        with self.assertRaises(ControlError):
            read_control(self.directory / "control")
        (self.directory / "control" / "ldapserver").write_text("127.0.0.1:3890\n")
        control = read_control(self.directory / "control")
        self.assertEqual(control.ldapmessagestore, f"{self.directory}/mail/")
        self.assertGreaterEqual(control.ldapuid or 0, 100)

    def test_every_user_has_mail(self) -> None:
        for user, messages in MAIL.items():
            new = sorted((self.directory / "mail" / user / "Maildir" / "new").iterdir())
            self.assertEqual([path.read_bytes() for path in new], list(messages))

    def test_a_directory_that_was_moved_is_still_of_use(self) -> None:
        moved = self.directory.with_name(self.directory.name + "-moved")
        self.directory.rename(moved)
        prepare(moved)
        store = (moved / "control" / "ldapmessagestore").read_text()
        self.assertEqual(store, f"{moved}/mail\n")

    def test_a_start_that_was_interrupted_leaves_no_half_filled_mailbox(self) -> None:
        home = self.directory / "mail" / "bob"
        (home / "Maildir").rename(home / "Maildir.unfinished")
        next((home / "Maildir.unfinished" / "new").iterdir()).unlink()
        prepare(self.directory)
        self.assertEqual(len(list((home / "Maildir" / "new").iterdir())), len(MAIL["bob"]))

    def test_a_second_time_changes_nothing(self) -> None:
        (self.directory / "mail" / "bob" / "Maildir" / "new").joinpath("more").write_bytes(b"x")
        (self.directory / "control" / "me").write_text("renamed\n")
        before = self.files()
        prepare(self.directory)
        self.assertEqual(self.files(), before)

    def test_a_mailbox_that_was_emptied_stays_empty(self) -> None:
        new = self.directory / "mail" / "alice" / "Maildir" / "new"
        for path in new.iterdir():
            path.unlink()
        prepare(self.directory)
        self.assertEqual(list(new.iterdir()), [])


class MessagesTests(SynchronousTestCase):
    def test_each_kind_that_clients_must_get_right_is_there(self) -> None:
        everything = [message for messages in MAIL.values() for message in messages]
        parsed = [message_from_bytes(message, policy=default) for message in everything]
        self.assertTrue(any(message.is_multipart() for message in parsed))
        self.assertTrue(any(list(message.iter_attachments()) for message in parsed))
        self.assertTrue(any(not message.isascii() for message in everything))
        self.assertTrue(any(b"\n.\n" in message and b"\n.." in message for message in everything))
        self.assertTrue(all(message["Subject"] and message["Date"] for message in parsed))


class CommandLineTests(SynchronousTestCase):
    def said(self, *arguments: str) -> str:
        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output), self.assertRaises(SystemExit):
            main(arguments)
        return output.getvalue()

    def test_help_names_the_commands(self) -> None:
        self.assertIn("demo", self.said("--help"))
        self.assertIn("--directory", self.said("demo", "--help"))

    def test_a_command_is_required(self) -> None:
        self.assertIn("COMMAND", self.said())

    def test_the_version_is_told(self) -> None:
        self.assertIn("qmailldap 0.", self.said("--version"))

    def test_a_directory_that_cannot_be_made_is_said_to_be(self) -> None:
        place = Path(self.mktemp())
        place.touch()
        with self.assertRaises(SystemExit) as caught:
            main(["demo", "--directory", str(place / "demo")])
        self.assertIn(str(place), str(caught.exception.code))
