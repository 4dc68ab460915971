"""What a person is told of a control directory, whatever is in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.control import Control, ControlError, read_control
from qmailldap.control.files import FILES
from qmailldap.control.inspection import FileReport, Inspection, inspect_control, with_faults_of

from ..root import require_root
from .test_strangers import QMAIL, QMAIL_LDAP

NAMES = [file.name for file in FILES]
LIKELY = st.sampled_from(
    [b"1", b"0", b"2\n", b"7", b"100", b"/a", b"./M/", b"|x", b"host:1", b"", b"a\r\n", b"a:b:1"]
)
CONTENTS = st.dictionaries(st.sampled_from(NAMES), LIKELY | st.binary(max_size=60), max_size=8)


def as_nobody(directory: Path) -> Inspection:
    os.seteuid(65534)
    try:
        return inspect_control(directory)
    finally:
        os.seteuid(0)


class InspectionTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def inspect(self, **files: bytes | str) -> Inspection:
        """What is told of a directory that holds these files."""
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            (self.directory / name).write_bytes(raw)
            (self.directory / name).chmod(0o600)
        return inspect_control(self.directory)

    def report(self, name: str, inspection: Inspection) -> FileReport:
        (report,) = (report for report in inspection.files if report.file.name == name)
        return report


class InspectTests(InspectionTestCase):
    def test_every_file_is_reported_whether_it_is_there_or_not(self) -> None:
        inspection = self.inspect(ldapserver="a\nb:1 [::1]\n", ldaprebind="1")
        self.assertEqual([report.file.name for report in inspection.files], NAMES)
        self.assertEqual(
            [report.file.name for report in inspection.files if report.is_set],
            ["ldapserver", "ldaprebind"],
        )
        servers = self.report("ldapserver", inspection)
        self.assertEqual(servers.value, ("a:389", "b:1", "[::1]:389"))
        self.assertEqual(servers.path, str(self.directory / "ldapserver"))
        self.assertEqual(inspection.all_errors, ())

    def test_nothing_is_wrong_with_a_sound_directory(self) -> None:
        inspection = self.inspect(ldapserver="a", ldapbasedn="dc=a", me="b\n# of the site\n\n")
        self.assertEqual((inspection.all_errors, inspection.all_warnings), ((), ()))

    def test_every_path_is_absolute(self) -> None:
        self.inspect(ldapserver="a")
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.directory)
        for name in (".", "./", f"../{self.directory.name}"):
            inspection = inspect_control(name)
            self.assertTrue(os.path.isabs(inspection.directory), inspection.directory)
            self.assertTrue(os.path.samefile(inspection.directory, self.directory))
            self.assertEqual(
                self.report("me", inspection).path, os.path.join(inspection.directory, "me")
            )
        self.assertEqual(inspect_control(".").directory, str(self.directory))
        self.assertEqual(inspect_control("").errors, ("cannot be used: No such file or directory",))

    def test_the_parent_of_where_a_link_leads_is_meant(self) -> None:
        (self.directory / "inner").mkdir()
        link = Path(self.mktemp()).absolute()
        link.symlink_to(self.directory / "inner")
        self.inspect(ldapserver="a")
        inspection = inspect_control(link / "..")
        self.assertEqual(self.report("ldapserver", inspection).value, ("a:389",))

    def test_values_are_shown_as_a_file_would_say_them(self) -> None:
        inspection = self.inspect(
            ldapserver="a",
            ldapcluster="1",
            me="mail1",
            ldapuid="0500 vmail",
            ldapmessagestore="/store",
            ldapdefaultdotmode="BOTH",
            pop3routes="Mail2:[::1]\n:10.0.0.1:2110",
            pop3trusted="::ffff:10.0.0.1\n192.0.2.0/24",
            pop3limits="idle:0900\nsessions:10",
            **{"cert.pem": "x"},
        )
        shown = {report.file.name: report.value for report in inspection.files if report.is_set}
        self.assertEqual(
            shown,
            {
                "me": ("mail1",),
                "ldapserver": ("a:389",),
                "ldapcluster": ("1",),
                "ldapuid": ("500",),
                "ldapmessagestore": ("/store/",),
                "ldapdefaultdotmode": ("both",),
                "pop3routes": ("mail2:[::1]:110", ":10.0.0.1:2110"),
                "pop3trusted": ("10.0.0.1/32", "192.0.2.0/24"),
                "pop3limits": ("idle:900",),
                "cert.pem": (str(self.directory / "cert.pem"),),
            },
        )

    def test_every_fault_is_told_not_only_the_first(self) -> None:
        inspection = self.inspect(ldaptimeout="0", ldapcluster="1", ldapuid="vmail", dirmaker="\1")
        self.assertEqual(
            [report.file.name for report in inspection.files if report.errors],
            ["me", "ldapserver", "ldaptimeout", "dirmaker"],
        )
        self.assertEqual(len(inspection.all_errors), 4)
        (warning,) = self.report("ldapuid", inspection).warnings
        self.assertIn("b'vmail' starts with no digit", warning)

    def test_what_a_faulty_file_was_to_say_is_not_guessed(self) -> None:
        inspection = self.inspect(
            ldapserver="a",
            ldapcluster="1",
            me="\1",
            ldaplogin="\1",
            ldapbasedn="dc=a",
            ldappassword="secret",
            pop3clustertls="7",
            pop3clusterca="x",
        )
        self.assertEqual(
            [report.file.name for report in inspection.files if report.errors],
            ["me", "ldaplogin", "pop3clustertls"],
        )
        self.assertEqual((len(inspection.all_errors), inspection.all_warnings), (3, ()))
        inspection = self.inspect(ldapcluster="7", pop3routes=":10.0.0.1")
        self.assertEqual(self.report("pop3routes", inspection).warnings, ())

    def test_the_password_is_no_value(self) -> None:
        inspection = self.inspect(ldapserver="a", ldaplogin="cn=a", ldappassword="hush-hush")
        self.assertEqual(self.report("ldappassword", inspection).value, ())
        self.assertTrue(self.report("ldappassword", inspection).is_set)
        self.assertNotIn("hush", repr(inspection))

    def test_a_file_in_whose_place_another_stands_is_not_used(self) -> None:
        inspection = self.inspect(ldapserver="a", defaultdelivery="./Own/", aliasempty="../bad")
        report = self.report("aliasempty", inspection)
        self.assertEqual((report.is_used, report.is_set, report.errors), (False, False, ()))
        (self.directory / "defaultdelivery").unlink()
        report = self.report("aliasempty", inspect_control(self.directory))
        self.assertTrue(report.is_used)
        self.assertEqual(len(report.errors), 1)

    def test_a_directory_that_is_none_is_all_there_is_to_tell(self) -> None:
        inspection = inspect_control(self.directory / "missing")
        self.assertEqual(inspection.errors, ("cannot be used: No such file or directory",))
        self.assertEqual((inspection.files, inspection.control), ((), None))

    def test_rights_are_looked_at(self) -> None:
        self.inspect(
            ldapserver="a", ldapbasedn="dc=a", dirmaker="/nowhere/dirmaker", pop3clusterca="x"
        )
        for name in ("ldapserver", "pop3clusterca"):
            (self.directory / name).chmod(0o602)
        (self.directory / "cert.pem").touch()
        (self.directory / "cert.pem").chmod(0o644)
        self.directory.chmod(0o777)
        inspection = inspect_control(self.directory)
        self.assertEqual(inspection.warnings, ("can be changed by everyone",))
        found = {
            report.file.name: report.warnings[-1] for report in inspection.files if report.warnings
        }
        self.assertEqual(
            found,
            {
                "ldapserver": "can be changed by everyone",
                "pop3clusterca": "can be changed by everyone",
                "dirmaker": "'/nowhere/dirmaker' cannot be run: No such file or directory",
                "cert.pem": "can be read by everyone, and may hold a private key",
            },
        )
        self.assertEqual(inspection.all_errors, ())

    def test_what_looks_like_a_control_file_is_a_warning(self) -> None:
        inspection = self.inspect(
            ldapserver="a", ldapbasedn="dc=a", ldapbasdn="dc=example", rcpthosts="a"
        )
        self.assertEqual([stranger.name for stranger in inspection.strangers], ["ldapbasdn"])
        self.assertEqual(inspection.all_warnings, (inspection.strangers[0].problem,))

    def test_somebody_without_rights_is_told_who_has_them(self) -> None:
        require_root("becomes another user")
        # The directory of trial may be closed to others.
        place = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, place)
        directory = self.directory.rename(Path(place, "control"))
        self.directory = directory
        self.inspect(ldapserver="a", ldapbasedn="dc=a", me="b")
        for path in (Path(place), directory, directory / "ldapserver", directory / "ldapbasedn"):
            path.chmod(0o711 if path.is_dir() else 0o644)
        inspection = as_nobody(directory)
        hint = "; the server is started as root, so look at it as root"
        (error,) = self.report("me", inspection).errors
        self.assertEqual(error, f"cannot be read: Permission denied{hint}")
        self.assertEqual(self.report("ldapserver", inspection).value, ("a:389",))
        self.assertEqual(
            inspection.warnings,
            ("cannot be listed, to look for misspelt names: Permission denied",),
        )
        Path(place).chmod(0o700)
        self.assertEqual(as_nobody(directory).errors, (f"cannot be used: Permission denied{hint}",))

    @settings(deadline=None)
    @given(CONTENTS)
    @example({"ldapserver": b"a"})
    @example({"ldapserver": b"a", "ldapcluster": b"1"})
    @example({"ldapserver": b"a", "defaultdelivery": b"|x", "aliasempty": b"-"})
    def test_there_is_an_error_exactly_where_the_server_does_not_start(
        self, files: dict[str, bytes]
    ) -> None:
        inspection = self.inspect(**files)
        try:
            control = read_control(self.directory)
        except ControlError as error:
            self.assertIn(error.problem, inspection.all_errors)
        else:
            self.assertEqual(inspection.all_errors, ())
            self.assertEqual(inspection.control, control)
            for warning in control.warnings:
                self.assertTrue(warning.endswith(tuple(inspection.all_warnings)), warning)
        for name in files:
            (self.directory / name).unlink()

    @settings(deadline=None)
    @given(st.binary(max_size=20), st.binary(max_size=20), CONTENTS)
    def test_nothing_that_is_told_holds_the_password(
        self, before: bytes, after: bytes, files: dict[str, bytes]
    ) -> None:
        secret = b"d2f7c0ffee"
        inspection = self.inspect(**{**files, "ldappassword": before + secret + after})
        self.assertNotIn(secret.decode(), repr(inspection))
        for name in {*files, "ldappassword"}:
            (self.directory / name).unlink()


class ListTests(InspectionTestCase):
    """Files of several lines of which more than one is wrong."""

    def test_every_line_that_is_wrong_is_named(self) -> None:
        inspection = self.inspect(
            ldapserver="a:x good\nhttp://b/\nc:0",
            pop3routes="a\nb::1\nb::2\nc:d:x",
            pop3trusted="10.0.0.1/8\nhost\n10.0.0.1",
        )
        self.assertEqual(
            self.report("ldapserver", inspection).errors,
            (
                "'a:x' is neither a host name or address nor host:port",
                "'http://b/' is no server of a directory: write host, host:port, ldaps://…",
                "'c:0' has a port that is out of range: 1 to 65535",
            ),
        )
        self.assertEqual(
            self.report("pop3routes", inspection).errors,
            (
                "'a' is not mailhost:address:port",
                "'b::2' is a second route of 'b'",
                "'c:d:x': 'd:x' is neither a host name or address nor host:port",
            ),
        )
        self.assertEqual(
            self.report("pop3trusted", inspection).errors,
            (
                "'10.0.0.1/8' has host bits set: 10.0.0.0/8 is the network",
                "'host' is neither an address nor a network such as 192.0.2.0/24",
            ),
        )
        with self.assertRaises(ControlError) as caught:
            read_control(self.directory)
        self.assertEqual(caught.exception.file, str(self.directory / "ldapserver"))
        self.assertIn("'a:x'", caught.exception.problem)

    def test_of_very_many_only_some_are_named(self) -> None:
        inspection = self.inspect(ldapserver="x:y\n" * 1000)
        errors = self.report("ldapserver", inspection).errors
        self.assertEqual((len(errors), errors[-1]), (21, "and 980 more that cannot be used"))


class DoubtTests(InspectionTestCase):
    """What a server takes as it is, and is doubtful all the same."""

    def doubts(self, name: str, content: str | bytes) -> tuple[str, ...]:
        """What is said of a file in an otherwise sound directory, from which no server starts."""
        sound = {"ldapserver": "a", "ldapbasedn": "dc=a", "ldaplogin": "cn=a", "ldappassword": "b"}
        inspection = self.inspect(**{**sound, name: content})
        control = read_control(self.directory)
        (self.directory / name).unlink()
        self.assertEqual(inspection.all_errors, ())
        found = self.report(name, inspection).warnings
        self.assertEqual(inspection.all_warnings, found)
        self.assertEqual(control.warnings, ())
        return found

    def test_a_value_that_begins_with_a_blank(self) -> None:
        for name in ("ldaplogin", "ldappassword", "me"):
            self.assertEqual(self.doubts(name, " cn=a"), ("begins with a blank",))
        self.assertEqual(
            self.doubts("ldappassword", "  battery-staple\n"), ("begins with a blank",)
        )

    def test_lines_that_are_not_read(self) -> None:
        for content in ("a\nb", "a\n\n \nb\n", "a\n# c\nb"):
            self.assertEqual(self.doubts("me", content), ("only the first line is read",))
        self.assertEqual(self.doubts("ldapuid", "500\n501"), ("only the first line is read",))
        self.assertEqual(self.doubts("ldappassword", b"a\n\xff"), ("only the first line is read",))
        for content in ("a\n", "a\n\n", "a\n# b\n", "# a\n", "a\n \t\r\n", "\n# b\n"):
            self.assertEqual(self.doubts("me", content), ())

    def test_a_first_line_that_is_empty_while_another_is_not(self) -> None:
        for content in ("\nhost\n", " \n\nhost", "\n# the name\nhost"):
            said = ("only the first line is read, which is empty",)
            self.assertEqual(self.doubts("me", content), said)

    def test_lists_have_as_many_lines_as_they_like(self) -> None:
        self.assertEqual(self.doubts("ldapclusterhosts", "\na\nb\n"), ())

    def test_a_message_store_that_is_not_there(self) -> None:
        self.assertEqual(self.doubts("ldapmessagestore", "/"), ())
        self.assertEqual(
            self.doubts("ldapmessagestore", "/nowhere/at/all"),
            ("'/nowhere/at/all/' cannot be used: No such file or directory",),
        )
        file = self.directory / "ldapserver"
        self.assertEqual(
            self.doubts("ldapmessagestore", str(file)),
            (f"'{file}/' cannot be used: Not a directory",),
        )

    def test_no_search_base(self) -> None:
        said = ("is missing or empty: the search base is the root of the directory",)
        for content in ("", "\n"):
            self.assertEqual(self.doubts("ldapbasedn", content), said)
        self.assertEqual(self.report("ldapbasedn", self.inspect(ldapserver="a")).warnings, said)

    def test_a_file_with_errors_or_without_a_use_is_beyond_doubt(self) -> None:
        inspection = self.inspect(
            ldapserver="a",
            ldapbasedn="\1",
            me="a\r\nb\r\n",
            defaultdelivery="./Own/",
            aliasempty="./Alias/\n|other\n",
        )
        self.assertEqual(inspection.all_warnings, ())

    def test_a_whole_directory_of_the_original_raises_none(self) -> None:
        files = {
            "me": "mail1.example.org\n",
            "ldapserver": "ldap1.example.org\nldap2.example.org:3890\n",
            "ldapbasedn": "o=qmail-ldap, c=CH\n",
            "ldapobjectclass": "qmailUser\n",
            "ldaplogin": "cn=qmail,o=qmail-ldap,c=CH\n",
            "ldappassword": "secret\n",
            "ldaptimeout": "60\n",
            "ldaprebind": "0\n",
            "ldapuid": "11184\n",
            "ldapgid": "2110\n",
            "ldapmessagestore": "/\n",
            "ldapdefaultdotmode": "both\n",
            "defaultquotasize": "30000000\n",
            "defaultquotacount": "1000\n",
            "ldapcluster": "1\n",
            "ldapclusterhosts": "mail1\nmail2\n",
            "ldaplocaldelivery": "0\n",
            "dirmaker": "/bin/true\n",
            "defaultdelivery": "./Maildir/\n",
            "aliasempty": "./Maildir/\n",
            "cert.pem": "x\n",
            **dict.fromkeys((*QMAIL.split(), *QMAIL_LDAP.split()), "1\n"),
        }
        self.assertGreater(len(files), 75)
        inspection = self.inspect(**files)
        self.assertEqual((inspection.all_errors, inspection.all_warnings), ((), ()))


class FaultsOfOthersTests(InspectionTestCase):
    def test_each_fault_is_added_to_its_file(self) -> None:
        asked = []

        def use(control: Control) -> None:
            asked.append((control.ldapbasedn, control.ldapobjectclass))
            if control.ldapbasedn:
                raise control.error("ldapbasedn", "is no name")
            if control.ldapobjectclass:
                raise control.error("ldapobjectclass", "is no filter")

        inspection = self.inspect(ldapserver="a", ldapbasedn="x", ldapobjectclass="y")
        inspection = with_faults_of(inspection, use)
        self.assertEqual(asked, [("x", "y"), ("", "y"), ("", None)])
        self.assertEqual(self.report("ldapbasedn", inspection).errors, ("is no name",))
        self.assertEqual(self.report("ldapbasedn", inspection).value, ())
        self.assertEqual(inspection.all_errors, ("is no name", "is no filter"))

    def test_who_finds_the_same_fault_for_ever_is_asked_no_more(self) -> None:
        def use(control: Control) -> None:
            raise control.error("me", "is not liked")

        inspection = with_faults_of(self.inspect(ldapserver="a"), use)
        self.assertEqual(inspection.all_errors, ("is not liked",))

    def test_a_fault_of_no_file_is_one_of_the_directory(self) -> None:
        def use(control: Control) -> None:
            raise ControlError("/elsewhere", "is bad")

        inspection = with_faults_of(self.inspect(ldapserver="a"), use)
        self.assertEqual(inspection.errors, ("/elsewhere: is bad",))
