"""The reading rules of control files, and every file's default and bounds."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from pathlib import Path
from typing import Any

import attrs
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.control import (
    Control,
    ControlError,
    POP3Limits,
    Route,
    ServerAddress,
    read_control,
)
from qmailldap.control.files import FILES
from qmailldap.quota import Quota

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LABELS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,6}[A-Za-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.just("") | NAMES | NAMES.map(".{}".format) | NAMES.map("{}.".format)
HOSTS = st.ip_addresses().map(str) | st.sampled_from(
    ["", "mail.example.org", "xn--mnchen-3ya.Example.org.", "localhost"]
)


def networks(addresses: st.SearchStrategy[Any], longest: int) -> st.SearchStrategy[Network]:
    return st.tuples(addresses, st.integers(0, longest)).map(
        lambda network: ipaddress.ip_network(network, strict=False)
    )


# None of ::/8, where IPv4-mapped addresses are: those come out as others.
NETWORKS = networks(st.ip_addresses(v=4), 32) | networks(
    st.ip_addresses(v=6, network="2000::/3"), 128
)


class ControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def read(self, **files: bytes | str) -> Control:
        for name, content in {"ldapserver": "localhost", **files}.items():
            raw = content.encode() if isinstance(content, str) else content
            (self.directory / name).write_bytes(raw)
        return read_control(self.directory)

    def assert_wrong(self, name: str, content: bytes | str, *said: str) -> None:
        """Reading fails, and says which file and what value is wrong."""
        with self.assertRaises(ControlError) as caught:
            self.read(**{name: content})
        self.assertEqual(caught.exception.file, str(self.directory / name))
        for text in said:
            self.assertIn(text, str(caught.exception))
        (self.directory / name).unlink()

    def test_everything_but_the_servers_has_a_default(self) -> None:
        self.assertEqual(self.read(), Control(ldapserver=(ServerAddress("localhost", 389),)))

    def test_every_file_is_read(self) -> None:
        control = self.read(
            me="mail1.example.org",
            ldapserver="ldap1\nldap2:3890\n",
            ldapbasedn="dc=example,dc=org",
            ldapobjectclass="qmailUser",
            ldaplogin="cn=pop3",
            ldappassword="secret",
            ldaptimeout="5",
            ldaprebind="1",
            ldapuid="500",
            ldapgid="501",
            ldapmessagestore="/store",
            ldapdefaultdotmode="both",
            defaultquotasize="1000000",
            defaultquotacount="1000",
            ldapcluster="1",
            ldapclusterhosts="a\nb",
            pop3routes="mail2.example.org:10.0.0.2:2110",
            pop3trusted="192.0.2.0/24",
            pop3clustertls="2",
            pop3clusterca="",
            ldaplocaldelivery="0",
            dirmaker="/bin/dirmaker",
            defaultdelivery="./Post/",
        )
        (self.directory / "cert.pem").touch()
        (self.directory / "ldappassword").chmod(0o600)
        self.assertEqual(
            read_control(self.directory),
            Control(
                me="mail1.example.org",
                ldapserver=(ServerAddress("ldap1", 389), ServerAddress("ldap2", 3890)),
                ldapbasedn="dc=example,dc=org",
                ldapobjectclass="qmailUser",
                ldaplogin="cn=pop3",
                ldappassword=b"secret",
                ldaptimeout=5,
                ldaprebind=True,
                ldapuid=500,
                ldapgid=501,
                ldapmessagestore="/store/",
                ldapdefaultdotmode="both",
                defaultquota=Quota(1000000, 1000),
                ldapcluster=True,
                ldapclusterhosts=("a", "b"),
                pop3routes=(Route("mail2.example.org", "10.0.0.2", 2110),),
                pop3trusted=(ipaddress.IPv4Network("192.0.2.0/24"),),
                pop3clustertls=2,
                pop3clusterca=self.directory / "pop3clusterca",
                ldaplocaldelivery=False,
                dirmaker="/bin/dirmaker",
                defaultdelivery="./Post/",
                certificate=self.directory / "cert.pem",
            ),
        )
        self.assertEqual(control.account_defaults.message_store, "/store/")

    def test_a_line_file_is_its_first_line_without_trailing_blanks(self) -> None:
        self.assertEqual(self.read(me="host \t \nsecond line\n").me, "host")
        self.assertEqual(self.read(me=" host").me, " host")

    def test_an_empty_line_is_as_good_as_no_file(self) -> None:
        control = self.read(me="\nhost\n", ldapobjectclass=" \n", ldapmessagestore="")
        self.assertEqual((control.me, control.ldapobjectclass), (None, None))
        self.assertIsNone(control.ldapmessagestore)

    def test_a_list_file_leaves_out_empty_lines_and_comments(self) -> None:
        control = self.read(ldapclusterhosts="a \n\n# b\n \nc#d\n #e\n")
        self.assertEqual(control.ldapclusterhosts, ("a", "c#d", " #e"))

    def test_a_number_is_the_digits_at_the_start(self) -> None:
        self.assertEqual(self.read(ldaptimeout="12 seconds\n").ldaptimeout, 12)
        self.assertEqual(self.read(ldaptimeout="soon").ldaptimeout, 30)
        self.assertEqual(self.read(ldaptimeout="-5").ldaptimeout, 30)
        self.assertEqual(self.read(ldaptimeout="").ldaptimeout, 30)

    def test_numbers_out_of_range_are_named(self) -> None:
        for name, value in (
            ("ldaptimeout", "0"),
            ("ldaptimeout", "3601"),
            ("ldaprebind", "2"),
            ("ldapcluster", "7"),
            ("ldaplocaldelivery", "2"),
            ("pop3clustertls", "3"),
            ("ldapuid", "99"),
            ("ldapgid", "4294967295"),
            ("defaultquotasize", "9223372036854775808"),
        ):
            self.assert_wrong(name, value, value)
        self.assert_wrong("ldaptimeout", "9" * 100_000, "100000 digits")

    def test_a_number_that_is_none_is_warned_of(self) -> None:
        for name, content in (("ldapuid", "vmail"), ("ldaptimeout", ""), ("ldaprebind", "yes")):
            warnings = self.read(**{name: content}).warnings
            self.assertEqual(len(warnings), 1)
            self.assertIn(f"{name}: ", warnings[0])
            (self.directory / name).unlink()

    def test_half_of_a_bind_is_warned_of(self) -> None:
        (warning,) = self.read(ldaplogin="cn=pop3").warnings
        self.assertIn("/ldappassword: is missing", warning)
        (self.directory / "ldaplogin").unlink()
        (self.directory / "ldappassword").write_text("secret")
        (self.directory / "ldappassword").chmod(0o600)
        (warning,) = read_control(self.directory).warnings
        self.assertIn("/ldaplogin: is missing", warning)

    def test_the_id_0_is_not_set(self) -> None:
        self.assertIsNone(self.read(ldapuid="0").ldapuid)

    def test_no_server_is_an_error(self) -> None:
        self.assert_wrong("ldapserver", "", "required")
        self.assert_wrong("ldapserver", "# none\n\n", "required")
        with self.assertRaises(ControlError) as caught:
            read_control(self.directory)
        self.assertIn("ldapserver", str(caught.exception))

    def test_servers_are_named_by_host_address_and_port(self) -> None:
        control = self.read(
            ldapserver="ldap.example.org\n10.0.0.1:1389\n[2001:db8::1]:636\n[::1]\n::1\na b:1\n"
        )
        self.assertEqual(
            [str(server) for server in control.ldapserver],
            [
                "ldap.example.org:389",
                "10.0.0.1:1389",
                "[2001:db8::1]:636",
                "[::1]:389",
                "[::1]:389",
                "a:389",
                "b:1",
            ],
        )

    def test_a_server_that_is_none_is_an_error(self) -> None:
        for value in (
            "host:0",
            "host:65536",
            "host:00655360",
            "host:" + "1" * 5000,
            "host:x",
            "host:",
            "http://host",
            "ldap://host:389/dc=x",
            "ldaps://",
            "ldaps://host:0",
            "ldapi:///",
            "[::1",
            "[x]",
            ":1",
            "under_score",
            "host 3890",
            "1.2.3.4.5",
            "ab--cd.example.org",
            "-a",
            "a..b",
        ):
            self.assert_wrong("ldapserver", value, repr(value.split()[-1]))

    def test_of_a_url_is_told_what_to_write(self) -> None:
        self.assert_wrong("ldapserver", "https://host/", "write host, host:port, ldaps://")

    def test_a_server_by_tls_is_a_url_of_ldaps(self) -> None:
        servers = self.read(
            ldapserver="ldaps://a LDAPS://b:1636/\nldap://c ldap://[::1]:3890 ldaps://[::1]"
        ).ldapserver
        self.assertEqual(
            servers,
            (
                ServerAddress("a", 636, tls=True),
                ServerAddress("b", 1636, tls=True),
                ServerAddress("c", 389),
                ServerAddress("::1", 3890),
                ServerAddress("::1", 636, tls=True),
            ),
        )
        self.assertEqual(
            [str(each) for each in servers[1:4]], ["ldaps://b:1636", "c:389", "[::1]:3890"]
        )

    def test_certificates_that_no_server_is_asked_for_are_warned_of(self) -> None:
        for wanted in ({}, {"ldapserver": "ldaps://a"}, {"ldaptls": "1"}):
            (self.directory / "ldaptls").unlink(missing_ok=True)
            warnings = self.read(ldapcacert="x", **wanted).warnings
            self.assertEqual(len(warnings), 0 if wanted else 1, warnings)

    def test_clear_text_has_no_sense_where_passwords_are_not_read(self) -> None:
        self.assertEqual(self.read(ldapcleartext="2").ldapcleartext, 2)
        (self.directory / "ldapcleartext").unlink()
        self.assertEqual(self.read(ldaprebind="1", ldapcleartext="0").ldapcleartext, 0)
        # ldaprebind is still there.
        self.assert_wrong("ldapcleartext", "1", "is of no use: with ldaprebind 1")

    def test_limits_are_lines_of_name_and_number(self) -> None:
        limits = self.read(
            pop3limits="# of this site\nconnections-per-address:500\nIdle: 1200\nsessions : 0\n"
        ).pop3limits
        self.assertEqual(limits, POP3Limits(connections_per_address=500, idle=1200, sessions=0))

    def test_a_limit_that_is_none_is_an_error(self) -> None:
        for line, problem in (
            ("idle", "is not name:number"),
            ("idle:", "is not name:number"),
            ("idle:10m", "is not name:number"),
            ("idle:" + "9" * 30, "is not name:number"),
            ("idle:599", "is out of range: 600 to 86400"),
            ("command:254", "is out of range: 255 to 8192"),
            ("idel:900", "is none of connections, "),
            ("idle:900\nidle:901", "is a second line of idle"),
        ):
            self.assert_wrong("pop3limits", line, problem)

    def test_every_limit_can_be_set_to_the_ends_of_its_range(self) -> None:
        for field in attrs.fields(POP3Limits):
            for number in (field.metadata["least"], field.metadata["most"]):
                name = field.name.replace("_", "-")
                limits = self.read(pop3limits=f"{name}:{number}").pop3limits
                self.assertEqual(limits, POP3Limits(**{field.name: number}))

    def test_an_international_name_is_one_in_its_ascii_form(self) -> None:
        control = self.read(ldapserver="xn--mnchen-3ya.example.org.")
        self.assertEqual(control.ldapserver[0].host, "xn--mnchen-3ya.example.org.")

    def test_a_route_leads_to_an_address_a_port_or_both(self) -> None:
        control = self.read(
            pop3routes=(
                "mail2.example.org:10.0.0.2:2110\n"
                "Mail3.Example.Org:Inside.example.org\n"
                "mail4.example.org::2110\n"
                "mail5.example.org:[2001:db8::5]:2110\n"
                "mail6.example.org:[fe80::6%Eth0]\n"
                "mail7.example.org:\n"
                "mail_8:10.0.0.8\n"
                "10.0.0.9:10.0.1.9\n"
                "mail10.example.org.:10.0.0.10\n"
                ".inside.example.org:gate.example.org\n"
                "# all others\n"
                ":10.0.0.1:0001110\n"
            )
        )
        self.assertEqual(
            control.pop3routes,
            (
                Route("mail2.example.org", "10.0.0.2", 2110),
                Route("mail3.example.org", "Inside.example.org", 110),
                Route("mail4.example.org", "", 2110),
                Route("mail5.example.org", "2001:db8::5", 2110),
                Route("mail6.example.org", "fe80::6%Eth0", 110),
                Route("mail7.example.org", "", 110),
                Route("mail_8", "10.0.0.8", 110),
                Route("10.0.0.9", "10.0.1.9", 110),
                Route("mail10.example.org.", "10.0.0.10", 110),
                Route(".inside.example.org", "gate.example.org", 110),
                Route("", "10.0.0.1", 1110),
            ),
        )

    def test_a_route_that_is_none_is_an_error(self) -> None:
        for value in (
            "mail2.example.org",
            "mail2.example.org 10.0.0.2",
            " mail2:10.0.0.2",
            "mail2 :10.0.0.2",
            "mail2: 10.0.0.2",
            "mail2:10.0.0.2:",
            "mail2:10.0.0.2:x",
            "mail2:10.0.0.2:0",
            "mail2:10.0.0.2:65536",
            "mail2:10.0.0.2:" + "0" * 5000,
            "mail2::",
            "mail2:2001:db8::1",
            "mail2:::1",
            "mail2:[::1",
            "mail2:[]",
            "mail2:[mail3]",
            "mail2:under_score",
            "mail2:10.0.0.2:110:110",
            "[2001:db8::1]:10.0.0.2",
            "*.example.org:10.0.0.2",
            "a..b:10.0.0.2",
            ".:10.0.0.2",
            "..b:10.0.0.2",
            "m\xfcnchen:10.0.0.2",
            "pop3://mail2:110",
        ):
            self.assert_wrong("pop3routes", value, repr(value))

    def test_a_second_route_of_a_name_is_an_error(self) -> None:
        for first, second in (("mail2:10.0.0.2", "MAIL2:10.0.0.3"), (":a", ":a"), (".b:", ".B:")):
            content = f"{first}\nother:x\n{second}\n"
            self.assert_wrong("pop3routes", content, repr(second), "is a second route")

    def test_who_is_trusted_is_named_by_addresses_and_networks(self) -> None:
        control = self.read(
            pop3trusted=(
                "10.0.0.1\n192.0.2.0/24\n# v6\n2001:db8::1\n2001:db8:1::/48\n0.0.0.0/0\n::/0\n"
                "::ffff:198.51.100.7\n::ffff:203.0.113.0/120\n::FFFF:0:0/96\n"
            )
        )
        self.assertEqual(
            [str(network) for network in control.pop3trusted],
            [
                "10.0.0.1/32",
                "192.0.2.0/24",
                "2001:db8::1/128",
                "2001:db8:1::/48",
                "0.0.0.0/0",
                "::/0",
                "198.51.100.7/32",
                "203.0.113.0/24",
                "0.0.0.0/0",
            ],
        )

    def test_trusting_everybody_is_warned_of(self) -> None:
        for network in ("0.0.0.0/0", "::/0"):
            (warning,) = self.read(pop3trusted=f"192.0.2.0/24\n{network}").warnings
            self.assertIn(f"pop3trusted: {network} lets every client say", warning)

    def test_routes_that_nobody_takes_are_warned_of(self) -> None:
        (warning,) = self.read(pop3routes="mail2:10.0.0.2").warnings
        self.assertIn("pop3routes: is not used: ldapcluster is not 1", warning)
        self.assertEqual(self.read(me="mail1", ldapcluster="1").warnings, ())

    def test_who_cannot_be_trusted_is_named_as_the_fault(self) -> None:
        for value in (
            "mail2.example.org",
            "10.0.0.1/24",
            "2001:db8::1/64",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0",
            "10.0.0.0/255.255.255.0",
            "10.0.0.0/-8",
            "10.0.0.1 10.0.0.2",
            " 10.0.0.1",
            "10.0.0.1:110",
            "[::1]",
            "fe80::1%eth0",
            "fe80::%eth0/64",
            "010.0.0.1",
            "167772161",
            "*",
        ):
            self.assert_wrong("pop3trusted", f"192.0.2.1\n{value}\n", repr(value))
        self.assert_wrong("pop3trusted", "10.1.2.3/16", "10.1.0.0/16 is the network")

    def test_authorities_that_verify_nobody_are_warned_of(self) -> None:
        for level in ("0", "1"):
            (warning,) = self.read(pop3clusterca="", pop3clustertls=level).warnings
            self.assertIn("/pop3clusterca: is not used", warning)
        self.assertEqual(self.read(pop3clustertls="2").warnings, ())

    def test_clustering_needs_a_name(self) -> None:
        with self.assertRaises(ControlError) as caught:
            self.read(ldapcluster="1")
        self.assertIn("me: is missing", str(caught.exception))

    def test_a_dot_mode_is_one_of_five(self) -> None:
        self.assertEqual(self.read(ldapdefaultdotmode="DotOnly").ldapdefaultdotmode, "dotonly")
        self.assert_wrong("ldapdefaultdotmode", "sometimes", "sometimes", "ldapwithprog")

    def test_a_message_store_is_absolute_and_ends_in_one_slash(self) -> None:
        self.assertEqual(self.read(ldapmessagestore="/a//").ldapmessagestore, "/a/")
        self.assertEqual(self.read(ldapmessagestore="/").ldapmessagestore, "/")
        self.assert_wrong("ldapmessagestore", "store", "store")

    def test_the_default_delivery_is_defaultdelivery_else_aliasempty(self) -> None:
        self.assertEqual(self.read(aliasempty="./Alias/").defaultdelivery, "./Alias/")
        self.assertEqual(self.read(defaultdelivery="./Own/").defaultdelivery, "./Own/")
        self.assert_wrong("defaultdelivery", "../Maildir/", "../Maildir/")
        self.assert_wrong("aliasempty", "./Mail dir/", "./Mail dir/")

    def test_a_delivery_instruction_names_no_mailbox(self) -> None:
        for line in ("|program", "&joe@example.org", "#comment"):
            control = self.read(defaultdelivery=line, aliasempty="./Alias/")
            self.assertEqual(control.defaultdelivery, "./Alias/")
            self.assertIn(line, control.warnings[0])

    def test_a_file_that_cannot_be_read_is_an_error(self) -> None:
        (self.directory / "me").mkdir()
        with self.assertRaises(ControlError) as caught:
            self.read()
        self.assertIn("me: cannot be read", str(caught.exception))

    def test_a_link_that_leads_nowhere_is_not_a_missing_file(self) -> None:
        for name in ("cert.pem", "ldappassword", "me", "pop3clusterca"):
            link = self.directory / name
            for target, shown in (("nowhere", "'nowhere'"), ("/no\x1b\n/x", r"'/no\x1b\n/x'")):
                link.symlink_to(target)
                with self.assertRaises(ControlError) as caught:
                    self.read()
                self.assertEqual(caught.exception.file, str(link))
                said = f"is a symbolic link to {shown}, which does not exist"
                self.assertEqual(caught.exception.problem, said)
                link.unlink()

    def test_a_link_to_a_link_that_leads_nowhere_is_told(self) -> None:
        (self.directory / "me").symlink_to("other")
        (self.directory / "other").symlink_to("nowhere")
        with self.assertRaises(ControlError) as caught:
            self.read()
        said = "is a symbolic link to 'other', which leads nowhere itself"
        self.assertEqual(caught.exception.problem, said)

    def test_what_is_not_a_regular_file_is_an_error_and_is_not_waited_for(self) -> None:
        os.mkfifo(self.directory / "me")
        with self.assertRaises(ControlError) as caught:
            self.read()
        self.assertIn("not a regular file", str(caught.exception))

    def test_a_directory_is_no_certificate(self) -> None:
        for name in ("cert.pem", "pop3clusterca"):
            (self.directory / name).mkdir()
            with self.assertRaises(ControlError) as caught:
                self.read()
            self.assertEqual(caught.exception.file, str(self.directory / name))
            (self.directory / name).rmdir()

    def test_text_that_is_no_text_is_an_error(self) -> None:
        self.assert_wrong("ldapbasedn", b"dc=caf\xe9", "UTF-8")
        self.assert_wrong("ldapbasedn", b"dc=x\r\n", "control character")
        self.assert_wrong("me", b"a\x00b", "control character")

    def test_lines_as_windows_has_them_are_named_so(self) -> None:
        self.assert_wrong("ldapbasedn", b"dc=x\r\n", "CRLF")
        self.assert_wrong("ldapclusterhosts", b"mail1\r\nmail2\r\n", "CRLF")
        (warning,) = self.read(ldaptimeout=b"\r\n").warnings
        self.assertIn("ldaptimeout: b'\\r' starts with no digit", warning)

    def test_a_byte_order_mark_is_named_so(self) -> None:
        self.assert_wrong("me", b"\xef\xbb\xbfmail1", "byte order mark")
        self.assert_wrong(
            "pop3trusted", b"\xef\xbb\xbf# all of ours\n10.0.0.0/8", "byte order mark"
        )
        (warning,) = self.read(ldaptimeout=b"\xef\xbb\xbf5").warnings
        self.assertIn("byte order mark", warning)

    def test_a_password_of_an_editor_on_windows_is_warned_of(self) -> None:
        (self.directory / "ldappassword").touch(mode=0o600)
        control = self.read(ldaplogin="cn=pop3", ldappassword=b"\xef\xbb\xbfsecret\r\n")
        self.assertEqual(control.ldappassword, b"\xef\xbb\xbfsecret\r")
        mark, carriage_return = control.warnings
        self.assertIn("ldappassword: begins with a byte order mark", mark)
        self.assertIn("ldappassword: ends in a carriage return", carriage_return)
        self.assertNotIn("secret", mark + carriage_return)

    def test_what_is_not_used_is_not_read(self) -> None:
        control = self.read(defaultdelivery="./Own/", aliasempty="../Elsewhere/")
        self.assertEqual((control.defaultdelivery, control.warnings), ("./Own/", ()))

    def test_a_control_directory_that_is_none_is_an_error(self) -> None:
        for path in (self.directory / "missing", self.directory / "file"):
            (self.directory / "file").touch()
            with self.assertRaises(ControlError) as caught:
                read_control(path)
            self.assertIn(str(path), str(caught.exception))

    def test_a_password_everyone_can_read_is_warned_of(self) -> None:
        self.read(ldaplogin="cn=pop3", ldappassword="secret")
        path = self.directory / "ldappassword"
        path.chmod(0o644)
        (warning,) = read_control(self.directory).warnings
        self.assertIn("ldappassword", warning)
        path.chmod(0o640)
        self.assertEqual(read_control(self.directory).warnings, ())

    def test_a_password_may_hold_any_octets_but_is_never_shown(self) -> None:
        control = self.read(ldappassword=b"\xff\x01 s\xe9cret \n")
        self.assertEqual(control.ldappassword, b"\xff\x01 s\xe9cret")
        self.assertNotIn("cret", repr(control))

    def test_reading_changes_nothing(self) -> None:
        self.read(me="host")
        before = sorted((name, os.stat(self.directory / name)[stat.ST_MTIME]) for name in ("me",))
        read_control(self.directory)
        self.assertEqual(sorted(os.listdir(self.directory)), ["ldapserver", "me"])
        self.assertEqual(before, [("me", os.stat(self.directory / "me")[stat.ST_MTIME])])

    def test_the_first_fault_is_raised_though_all_files_are_read(self) -> None:
        with self.assertRaises(ControlError) as caught:
            self.read(ldaptimeout="0", ldaprebind="2", ldapbasedn="\1")
        self.assertEqual(caught.exception.file, str(self.directory / "ldapbasedn"))

    def test_every_default_is_what_a_file_that_says_it_means(self) -> None:
        written = 0
        for file in FILES:
            literal = file.default.partition(":")[0]
            if file.kind.startswith("number") and literal.isdigit():
                content = literal
            elif file.name in ("ldapdefaultdotmode", "aliasempty"):
                content = file.default
            else:
                continue
            written += 1
            without = self.read()
            self.assertEqual(self.read(**{file.name: content}), without, file.name)
            (self.directory / file.name).unlink()
        self.assertEqual(written, 12)

    @given(
        st.sampled_from(
            [
                "me",
                "ldapserver",
                "ldapbasedn",
                "ldappassword",
                "ldaptimeout",
                "ldapuid",
                "ldapmessagestore",
                "ldapdefaultdotmode",
                "ldapclusterhosts",
                "defaultquotasize",
                "defaultdelivery",
                "pop3limits",
                "pop3routes",
                "pop3trusted",
                "pop3clustertls",
                "pop3clusterca",
            ]
        ),
        st.binary(max_size=80),
    )
    def test_any_content_is_read_or_named_as_the_fault(self, name: str, content: bytes) -> None:
        try:
            control = self.read(**{name: content})
        except ControlError as error:
            self.assertEqual(error.file, str(self.directory / name))
        else:
            # Compared with a second, naive reading of the rules.
            first = content.split(b"\n")[0].rstrip(b" \t\n")
            if name == "me":
                self.assertEqual((control.me or "").encode(), first)
            elif name == "ldappassword":
                self.assertEqual(control.ldappassword, first)
            elif name == "ldaptimeout":
                digits = first[: len(first) - len(first.lstrip(b"0123456789"))]
                self.assertEqual(control.ldaptimeout, int(digits or b"30"))
        (self.directory / name).unlink()

    @given(
        st.lists(
            st.tuples(PATTERNS, HOSTS, st.none() | st.integers(1, 65535)),
            unique_by=lambda route: route[0].lower(),
            max_size=5,
        )
    )
    def test_routes_are_read_as_they_are_written(
        self, routes: list[tuple[str, str, int | None]]
    ) -> None:
        lines = [
            f"{pattern}:{f'[{host}]' if ':' in host else host}" + (f":{port}" if port else "")
            for pattern, host, port in routes
        ]
        control = self.read(pop3routes="\n".join(lines))
        self.assertEqual(
            control.pop3routes,
            tuple(Route(pattern.lower(), host, port or 110) for pattern, host, port in routes),
        )

    @given(st.text(st.sampled_from("ab1.:[]%-_ /#\n"), max_size=12))
    @example("a:[::1]:1")
    def test_any_text_is_routes_or_named_as_the_fault(self, text: str) -> None:
        lines = [line.rstrip() for line in text.split("\n")]
        lines = [line for line in lines if line and not line.startswith("#")]
        try:
            routes = self.read(pop3routes=text).pop3routes
        except ControlError as error:
            self.assertEqual(error.file, str(self.directory / "pop3routes"))
            self.assertTrue(any(repr(line) in error.problem for line in lines), error)
            return
        for line, route in zip(lines, routes, strict=True):
            host = f"[{route.host}]" if ":" in route.host else route.host
            shortest = f"{route.pattern}:{host}"
            self.assertRegex(line, rf"\A{re.escape(shortest)}(:0*{route.port})?\Z")

    @given(st.lists(NETWORKS, max_size=5))
    def test_networks_are_read_as_they_are_written(self, trusted: list[Network]) -> None:
        control = self.read(pop3trusted="\n".join(str(network) for network in trusted))
        self.assertEqual(control.pop3trusted, tuple(trusted))

    @given(st.text(st.sampled_from("012589abf.:/%-"), min_size=1, max_size=12))
    @example("1.2.3.4/8")
    @example("1.2.3.4/0.0.0.255")
    def test_any_text_is_a_network_or_named_as_the_fault(self, text: str) -> None:
        try:
            trusted = self.read(pop3trusted=text).pop3trusted
        except ControlError as error:
            self.assertEqual(error.file, str(self.directory / "pop3trusted"))
            self.assertIn(repr(text), error.problem)
        else:
            self.assertEqual(trusted, (ipaddress.ip_network(text),))
