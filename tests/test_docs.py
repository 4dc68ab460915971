"""The manual against the tables in the code: what is documented is what is there."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.control import POP3Limits
from qmailldap.control.files import FILES
from qmailldap.forward import ForwardLimits
from qmailldap.forward.addresses import KEPT, REMEMBERED
from qmailldap.forward.dialogue import LONGEST_ANSWER
from qmailldap.forward.machines import MOST_ADDRESSES
from qmailldap.pop3 import Limits
from qmailldap.refusal import Refusal
from qmailldap.service import Options

DOCS = Path(__file__).parent.parent / "docs"


def rows(page: str) -> list[list[str]]:
    """The cells of every table row of a page."""
    text = (DOCS / page).read_text()
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]


class ManualTests(SynchronousTestCase):
    def test_every_refusal_is_in_the_manual(self) -> None:
        documented = [
            row for row in rows("administration.md") if len(row) == 4 and row[3].isdigit()
        ]
        self.assertEqual(
            sorted(documented),
            sorted(
                [
                    refusal.name.lower().replace("_", "-"),
                    refusal.outcome.text,
                    refusal.outcome.code,
                    str(refusal.outcome.exit_code),
                ]
                for refusal in Refusal
            ),
        )

    def test_control_files_are_in_the_manual_as_they_are_read(self) -> None:
        documented = [
            (name, row[1], row[2].strip("*").replace("`", ""))
            for row in rows("control-files.md")
            if len(row) == 4 and row[0] not in ("file", "name")
            for name in re.findall("`([a-z0-9.-]+)`", row[0])
        ]
        limits = [
            (
                field.name.replace("_", "-"),
                str(field.default),
                f"{field.metadata['least']} to {field.metadata['most']}",
            )
            for field in attrs.fields(POP3Limits)
        ]
        files = [(file.name, file.kind, file.default) for file in FILES]
        self.assertEqual(documented, files + limits)

    def test_every_option_is_in_the_manual(self) -> None:
        documented = {
            name
            for row in rows("administration.md")
            for name in re.findall("`--([a-z0-9-]+)", row[0])
        }
        options = set(Options().synonyms.values()) - {"version", "help"}
        self.assertEqual(documented, options)

    def test_limits_in_the_manual_are_those_in_force(self) -> None:
        text = (DOCS / "administration.md").read_text()
        limits, site = Limits(), POP3Limits()
        for limit in (
            (
                f"| connections | {site.connections} in all, "
                f"{site.connections_per_address} from one address |"
            ),
            f"| from the connection to the login | {limits.login_time:.0f} s |",
            f"| a TLS handshake | {limits.handshake_time:.0f} s |",
            f"| a PROXY header behind `haproxy:` | {site.proxy_time} s |",
            f"| refused logins on a connection | {limits.logins} |",
            f"| a command line with its end | {limits.command} octets;",
            f"{limits.trusted_command} from `pop3trusted`",
            f"| a line within AUTH | {limits.sasl} octets |",
            f"| pipelined commands | {limits.pipelined}, {limits.input // 1024} KiB |",
            (
                "| silence after the login, or a client that does not read |"
                f" {limits.idle / 60:.0f} minutes |"
            ),
            f"| a client that does not take what it was sent last | {limits.linger:.0f} s |",
            f"| sessions of one user | {site.sessions} |",
            (
                f"| wrong passwords | {site.guesses} from one address,"
                f" {site.guesses_per_login} of one login from there |"
            ),
        ):
            self.assertIn(limit, text)

    def test_limits_of_forwarding_in_the_manual_are_those_in_force(self) -> None:
        documented = dict(row[:2] for row in rows("cluster.md"))
        limits = ForwardLimits()
        for name, value in (
            ("to resolve the name, connect and be greeted", f"{limits.reach:g} s in all"),
            ("the greeting, and each answer before PASS", f"{limits.answer:g} s"),
            ("the answer to PASS", f"{limits.password:g} s"),
            ("a line of an answer", f"{LONGEST_ANSWER} octets"),
            ("addresses of a name that are tried", f"{MOST_ADDRESSES}"),
            ("addresses of a name, until it is looked up again", f"{REMEMBERED:g} s"),
            ("the same, while that takes its time or fails", f"{KEPT / 60:g} minutes"),
            ("a machine that is down is left alone", f"{limits.down:g} s"),
            (
                "logins of one user under way at members that do not trust this one",
                f"{limits.same_login}; more wait for {limits.same_login_wait:g} s",
            ),
            ("logins under way at one member", f"{limits.logins}"),
            ("silence of both sides of a joined session", f"{limits.idle / 60:g} minutes"),
            (
                "a client that was told the end, or a member whose client is gone",
                f"{limits.linger:g} s of silence",
            ),
        ):
            self.assertEqual(documented[name].rstrip(" |"), value)
