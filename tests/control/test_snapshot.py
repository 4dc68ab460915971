"""All control files as they were at one moment: the same as the directory, for those who cannot."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.control import Control, ControlError, ControlSnapshot, read_control
from qmailldap.control import snapshot as snapshot_module
from qmailldap.control.files import read_files
from qmailldap.control.folder import LARGEST_FILE
from qmailldap.control.snapshot import NAMES

CONTENTS = st.one_of(
    st.sampled_from(
        [
            b"",
            b"1",
            b"0\n",
            b"2\n",
            b"99999999999\n",
            b"\xef\xbb\xbf1\n",
            b"a\r\n",
            b"\xff",
            b"./Maildir/\n",
            b"/var/mail\n",
            b"#none\n",
            b"mail.example.org\nldap2:3890\n",
            b"192.0.2.0/24\n::1\n",
            b"sessions:3\n",
            b"x:y:z\n",
        ]
    ),
    st.binary(max_size=40),
)
MODES = st.sampled_from([0o600, 0o640, 0o644])
LINKS = st.sampled_from(["nowhere", "me", "loop"])
KINDS = st.one_of(
    st.tuples(st.just("file"), CONTENTS, MODES),
    st.tuples(st.just("link"), LINKS, st.none()),
    st.tuples(st.sampled_from(["fifo", "directory", "large"]), st.none(), st.none()),
)
DIRECTORIES = st.dictionaries(st.sampled_from(NAMES), KINDS, max_size=8)


def make(directory: Path, files: dict[str, Any]) -> None:
    (directory / "loop").symlink_to("loop")
    for name, (kind, what, mode) in {"ldapserver": ("file", b"ldap1\n", 0o644), **files}.items():
        path = directory / name
        if kind == "file":
            path.write_bytes(what)
            path.chmod(mode)
        elif kind == "link":
            path.symlink_to(what)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        else:
            path.write_bytes(b"x\n" * (LARGEST_FILE // 2 + 1))


def outcome(where: Any) -> tuple[Control | None, str]:
    try:
        return read_control(where), ""
    except ControlError as error:
        return None, str(error)


class SnapshotTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def read(self, *certificates: Path, **files: str) -> ControlSnapshot:
        for name, text in {"ldapserver": "ldap1", **files}.items():
            (self.directory / name.replace("_", ".")).write_text(text + "\n")
        return ControlSnapshot.read(self.directory, certificates)


class SameAsTheDirectoryTests(SnapshotTestCase):
    @settings(max_examples=60, suppress_health_check=[HealthCheck.differing_executors])
    @given(DIRECTORIES)
    def test_whatever_is_there_means_the_same_by_way_of_json(self, files: dict[str, Any]) -> None:
        shutil.rmtree(self.directory)
        self.directory.mkdir()
        make(self.directory, files)
        snapshot = ControlSnapshot.read(self.directory)
        again = ControlSnapshot.from_json(snapshot.to_json())
        self.assertEqual(again, snapshot)
        self.assertEqual(again.changes(snapshot), [])
        self.assertEqual(outcome(again), outcome(self.directory))
        by_directory, by_snapshot = read_files(self.directory), read_files(again)
        self.assertEqual(
            (by_snapshot.values, by_snapshot.faults, by_snapshot.directory),
            (by_directory.values, by_directory.faults, by_directory.directory),
        )

    def test_no_directory_is_the_same_fault(self) -> None:
        for path in (self.directory / "none", "", __file__):
            with self.assertRaises(ControlError) as snapshot:
                ControlSnapshot.read(path)
            with self.assertRaises(ControlError) as directory:
                read_control(path)
            self.assertEqual(str(snapshot.exception), str(directory.exception))

    def test_a_password_that_everyone_may_read_is_warned_of(self) -> None:
        (self.directory / "ldappassword").write_text("secret\n")
        (self.directory / "ldappassword").chmod(0o644)
        (warning,) = read_control(self.read(ldaplogin="cn=pop3")).warnings
        self.assertIn("ldappassword: can be read by everyone", warning)

    def test_files_that_are_used_as_they_are_are_held(self) -> None:
        self.assertEqual(read_control(self.read(ldapcacert="PEM")).held, {"ldapcacert": b"PEM\n"})
        self.assertEqual(read_control(self.directory).held, {})


class CertificatesTests(SnapshotTestCase):
    def test_those_that_options_name_are_read_with_the_others(self) -> None:
        chain = self.directory.absolute() / "chain.pem"
        chain.write_bytes(b"chain")
        snapshot = self.read(chain, chain.with_name("key.pem"))
        self.assertEqual(snapshot.certificate(chain).content, b"chain")
        self.assertEqual(snapshot.certificate(chain.with_name("key.pem")).state, "missing")
        self.assertEqual(ControlSnapshot.from_json(snapshot.to_json()), snapshot)

    def test_that_of_the_control_file_is_found_by_its_path(self) -> None:
        snapshot = self.read(cert_pem="PEM")
        path = read_control(snapshot).certificate
        assert path is not None
        self.assertEqual(snapshot.certificate(path.absolute()).content, b"PEM\n")


class ChangesTests(SnapshotTestCase):
    def test_they_are_told_in_the_order_of_the_table(self) -> None:
        chain = self.directory.absolute() / "chain.pem"
        before = self.read(chain, me="a", pop3limits="sessions:1")
        (self.directory / "pop3limits").unlink()
        chain.write_text("new")
        after = self.read(chain, me="b", cert_pem="PEM")
        expected = ["me", "pop3limits", "cert.pem", str(chain)]
        self.assertEqual(after.changes(before), expected)

    def test_who_may_read_a_file_is_none(self) -> None:
        before = self.read(ldappassword="secret")
        (self.directory / "ldappassword").chmod(0o600)
        self.assertEqual(self.read(ldappassword="secret").changes(before), [])


class JsonTests(SnapshotTestCase):
    def test_nothing_of_a_content_is_shown(self) -> None:
        self.assertNotIn("hidden", repr(self.read(ldappassword="hidden")))

    @given(
        st.text(max_size=200)
        | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)
    )
    def test_any_text_is_a_snapshot_or_an_error_that_shows_nothing(self, text: str) -> None:
        with self.assertRaises(ValueError) as caught:
            ControlSnapshot.from_json(text)
        self.assertEqual(str(caught.exception), "what came is no snapshot of control files")

    def test_what_is_not_as_it_is_written_is_refused(self) -> None:
        whole = json.loads(self.read(me="x").to_json())
        changes: list[dict[str, Any]] = [
            {"more": 1},
            {"directory": 3},
            {"files": []},
            {"files": {"../../etc/shadow": ["read", 0, 0, ""]}},
            {"files": {"me": ["read", 0, 0]}},
            {"files": {"me": ["none", 0, 0, ""]}},
            {"files": {"me": ["read", True, 0, ""]}},
            {"files": {"me": ["read", -1, 0, ""]}},
            {"files": {"me": ["read", 0, 0, "?"]}},
            {"certificates": {"/x": None}},
        ]
        for change in changes:
            with self.assertRaises(ValueError):
                ControlSnapshot.from_json(json.dumps({**whole, **change}))

    def test_there_is_a_bound_to_it(self) -> None:
        self.patch(snapshot_module, "LARGEST_SNAPSHOT", 100)
        self.patch(snapshot_module, "_LARGEST_JSON", 1000)
        small = self.read(me="x")
        with self.assertRaises(ControlError):
            self.read(me="x" * 101)
        with self.assertRaises(ValueError):
            ControlSnapshot.from_json(" " * 1001)
        large = attrs.evolve(small, files={"me": small.look("me")._replace(content=b"x" * 101)})
        with self.assertRaises(ValueError):
            ControlSnapshot.from_json(large.to_json())
