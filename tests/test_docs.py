"""The manual against the tables in the code: what is documented is what is there."""

from __future__ import annotations

import re

import attrs
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.control import POP3Limits
from qmailldap.control.files import FILES
from qmailldap.figures.table import FIGURES
from qmailldap.forward import ForwardLimits
from qmailldap.forward.addresses import KEPT, REMEMBERED
from qmailldap.forward.dialogue import LONGEST_ANSWER
from qmailldap.forward.machines import MOST_ADDRESSES
from qmailldap.log_lines import FIELDS, LINES
from qmailldap.pop3 import Limits
from qmailldap.refusal import Refusal
from qmailldap.service import Options

from .pages import PAGES, PROJECT, anchors, links, site_module

DOCS = PROJECT / "docs"


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


class LinkTests(SynchronousTestCase):
    def test_every_link_leads_to_a_file_and_a_heading_that_there_are(self) -> None:
        followed = 0
        for page in PAGES:
            for link in links(page):
                if re.match(r"\w+:", link):
                    continue
                followed += 1
                path, _, anchor = link.partition("#")
                target = (page.parent / path).resolve() if path else page
                where = f"{page.relative_to(PROJECT)}: {link}"
                self.assertTrue(target.exists(), where)
                if anchor:
                    self.assertIn(anchor, anchors(target), where)
        self.assertGreater(followed, 200)

    def test_every_page_is_in_the_order_of_the_site(self) -> None:
        index = (DOCS / "index.md").read_text()
        ordered = re.findall(r"^(?:.*<)?([\w./-]+)>?$", index, re.MULTILINE)
        pages = [*DOCS.rglob("*.md"), *DOCS.rglob("*.rst")]
        names = {path.relative_to(DOCS).as_posix().rsplit(".", 1)[0] for path in pages}
        self.assertEqual(names - set(ordered), {"index"})


class ReferenceTests(SynchronousTestCase):
    """The tables that the site makes from the code."""

    def names(self, table: str) -> list[str]:
        return [row.name for row in site_module("tables").TABLES[table]().rows]

    def test_every_table_is_on_a_page(self) -> None:
        text = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
        shown = re.findall(r"^```{generated-table} (.+)$", text, re.MULTILINE)
        self.assertEqual(sorted(shown), sorted(site_module("tables").TABLES))

    def test_every_row_has_a_cell_for_each_heading(self) -> None:
        for name, make in site_module("tables").TABLES.items():
            table = make()
            self.assertTrue(table.rows, name)
            for row in table.rows:
                self.assertEqual(len(row.cells) + 1, len(table.headings), row.name)

    def test_options_are_those_of_the_server(self) -> None:
        options = set(Options().synonyms.values()) - {"version", "help"}
        names = {re.split("[ ,]", name)[0] for name in self.names("options")}
        self.assertEqual(names, {f"--{option}" for option in options})

    def test_control_files_and_limits_are_those_that_are_read(self) -> None:
        self.assertEqual(self.names("control-files"), [file.name for file in FILES])
        limits = [field.name.replace("_", "-") for field in attrs.fields(POP3Limits)]
        self.assertEqual(self.names("limits"), limits)

    def test_refusals_are_those_that_there_are(self) -> None:
        reasons = [refusal.name.lower().replace("_", "-") for refusal in Refusal]
        self.assertEqual(self.names("refusals"), reasons)

    def test_metrics_are_those_that_are_counted(self) -> None:
        self.assertEqual(self.names("metrics"), [figure.shown for figure in FIGURES])

    def test_log_lines_and_their_fields_are_those_that_are_logged(self) -> None:
        self.assertEqual(self.names("log-lines"), [line.shown for line in LINES])
        self.assertEqual(self.names("log-fields"), list(FIELDS))

    def test_every_row_can_be_linked_to(self) -> None:
        for name, make in site_module("tables").TABLES.items():
            anchors = make().anchors()
            self.assertEqual(len(set(anchors)), len(make().rows), name)


class PagesFromElsewhereTests(SynchronousTestCase):
    """Texts above docs/ that are pages of the site."""

    def relinked(self, text: str, written: str, shown: str) -> str:
        found: str = site_module("relinking").relinked(text, written, shown)
        return found

    def test_links_of_the_readme_go_from_its_page(self) -> None:
        for link, there in (
            ("docs/rights.md", "rights.md"),
            ("docs/cluster.md#limits", "cluster.md#limits"),
            ("CHANGELOG.md", "changelog.md"),
            ("tac/qmailldap-pop3.tac", "../tac/qmailldap-pop3.tac"),
            ("https://twisted.org", "https://twisted.org"),
            ("#state", "#state"),
        ):
            shown = self.relinked(f"[this]({link})", "README.md", "docs/about.md")
            self.assertEqual(shown, f"[this]({there})")

    def test_links_to_such_a_text_lead_to_its_page(self) -> None:
        for page, there in (
            ("docs/performance.md", "benchmarks.md"),
            ("docs/reference/options.md", "../benchmarks.md"),
        ):
            link = "../" * page.count("/") + "benchmarks/README.md"
            self.assertEqual(self.relinked(f"[this]({link})", page, page), f"[this]({there})")
