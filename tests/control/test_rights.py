"""Modes and owners that let others change, or read, what a server trusts."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.control.rights import directory_rights, file_rights, key_rights, program_rights

from ..root import require_root

STRANGER = 20125
"""A user id that no system uses."""


class RightsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.file = self.directory / "file"
        self.file.touch()

    def of_file(self, mode: int) -> list[str]:
        self.file.chmod(mode)
        return list(file_rights(str(self.file), str(self.directory)))

    def of_key(self, mode: int) -> list[str]:
        self.file.chmod(mode)
        return list(key_rights(str(self.file), str(self.directory)))

    def of_program(self, mode: int) -> list[str]:
        self.file.chmod(mode)
        return list(program_rights(str(self.file), str(self.directory)))

    def test_only_the_owner_may_change_a_file(self) -> None:
        self.assertEqual(self.of_file(0o644), [])
        self.assertEqual(self.of_file(0o646), ["can be changed by everyone"])
        group = self.file.stat().st_gid
        self.assertEqual(self.of_file(0o664), [f"can be changed by the group {group}"])
        self.assertEqual(self.of_file(0o666), ["can be changed by everyone"])

    def test_only_the_owner_may_change_the_directory(self) -> None:
        for mode, number in ((0o755, 0), (0o775, 1), (0o757, 1)):
            self.directory.chmod(mode)
            self.assertEqual(len(list(directory_rights(str(self.directory)))), number)

    def test_a_file_belongs_to_root_or_to_the_owner_of_the_directory(self) -> None:
        require_root("gives files away")
        os.chown(self.file, STRANGER, 0)
        problem = f"belongs to the user {STRANGER}, who can change it"
        self.assertEqual(self.of_file(0o644), [problem])
        self.assertEqual(self.of_key(0o600), [problem])
        os.chown(self.directory, STRANGER, 0)
        self.assertEqual(self.of_file(0o644), [])
        os.chown(self.file, 0, 0)
        self.assertEqual(self.of_file(0o644), [])

    def test_a_key_is_read_by_its_owner_and_group_only(self) -> None:
        for mode in (0o400, 0o600, 0o640):
            self.assertEqual(self.of_key(mode), [])
        told = "can be read by everyone, and {} a private key"
        self.assertEqual(self.of_key(0o644), [told.format("may hold")])
        self.file.write_text("-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n")
        self.assertEqual(self.of_key(0o644), [told.format("may hold")])
        with self.file.open("a") as file:
            file.write("-----BEGIN EC PRIVATE KEY-----\nQUJD\n-----END EC PRIVATE KEY-----\n")
        self.assertEqual(self.of_key(0o644), [told.format("holds")])
        self.assertEqual(self.of_key(0o602), ["can be changed by everyone"])

    def test_what_is_no_file_is_not_searched_for_a_key(self) -> None:
        self.file.unlink()
        os.mkfifo(self.file)
        self.assertEqual(
            self.of_key(0o644), ["can be read by everyone, and may hold a private key"]
        )

    def test_the_certificate_of_the_original_is_that_of_qmaild(self) -> None:
        require_root("gives files away")
        self.patch(pwd, "getpwnam", lambda name: pwd.struct_passwd((name, "x", STRANGER, *"0000")))
        os.chown(self.file, STRANGER, 0)
        self.assertEqual(self.of_key(0o640), [])
        self.assertEqual(len(self.of_file(0o640)), 1)

    def test_a_missing_file_has_no_rights(self) -> None:
        self.file.unlink()
        self.assertEqual(list(file_rights(str(self.file), str(self.directory))), [])
        self.assertEqual(list(key_rights(str(self.file), str(self.directory))), [])

    def test_everybody_must_be_able_to_run_a_program_and_nobody_to_change_it(self) -> None:
        shown = repr(str(self.file))
        self.assertEqual(self.of_program(0o755), [])
        self.assertEqual(
            self.of_program(0o750),
            [f"{shown} cannot be executed by everyone, and is run as the mailboxes' owners"],
        )
        self.assertEqual(self.of_program(0o757), [f"{shown} can be changed by everyone"])
        self.assertEqual(len(self.of_program(0o666)), 2)

    def test_a_program_that_is_none_is_told(self) -> None:
        self.assertEqual(
            list(program_rights("/nowhere/x", "/")),
            ["'/nowhere/x' cannot be run: No such file or directory"],
        )
        (problem,) = program_rights("/" + "x" * 5000, "/")
        self.assertIn("File name too long", problem)
        self.assertEqual(list(program_rights("/", "/")), ["'/' is not a regular file"])

    def test_a_program_without_a_slash_is_sought_along_the_path(self) -> None:
        self.patch(os, "environ", {**os.environ, "PATH": str(self.directory)})
        self.file.chmod(0o755)
        self.assertEqual(list(program_rights("file", str(self.directory))), [])
        self.file.chmod(0o757)
        (problem,) = program_rights("file", str(self.directory))
        self.assertEqual(problem, f"{str(self.file)!r} can be changed by everyone")
        (problem,) = program_rights("no-such", str(self.directory))
        self.assertEqual(problem, "'no-such' is not found along the PATH of this command")

    def test_where_a_relative_path_leads_is_not_guessed(self) -> None:
        (problem,) = program_rights("bin/dirmaker", str(self.directory))
        self.assertIn("'bin/dirmaker' is no absolute path", problem)
