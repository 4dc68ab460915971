"""The manual pages against the code: what they say is there, and what is there they say."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from configparser import ConfigParser
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.core import publish_doctree
from docutils.utils import SystemMessage
from twisted.trial.unittest import SynchronousTestCase

from qmailldap import commands
from qmailldap.account import Account
from qmailldap.admin.sessions import told
from qmailldap.commands.auth_pop import ownership, request
from qmailldap.commands.auth_pop.decision import REFUSAL_GRID
from qmailldap.commands.lookup.findings import (
    Asked,
    Attribute,
    Findings,
    Looked,
    Mail,
    Mailbox,
    Password,
    Search,
    Verdict,
)
from qmailldap.commands.lookup.json_text import as_json as lookup_json
from qmailldap.commands.sessions import as_json as sessions_json
from qmailldap.commands.showctl import as_json as showctl_json
from qmailldap.commands.status import as_json as status_json
from qmailldap.control.files import FILES
from qmailldap.control.inspection import inspect_control
from qmailldap.loglevel import DEFAULT_MASK, Kind
from qmailldap.passwords.making import DEFAULT_TYPE, TYPES
from qmailldap.present import Presence
from qmailldap.quota import Quota
from qmailldap.refusal import Refusal
from qmailldap.service import Options
from qmailldap.status.state import Place, Places
from tests.status.support import refused, state

PROJECT = Path(__file__).parent.parent
PAGES = ("auth_pop", "qmailldap", "qmailldap-pop3")

_WIDTH = 70
"""Columns of a literal block that a terminal of 80 shows unbroken: the text is indented by 10."""


def build_script() -> ModuleType:
    """setup.py as a module, which so makes pages and builds nothing."""
    specification = spec_from_file_location("build_script", PROJECT / "setup.py")
    assert specification is not None and specification.loader is not None
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


FROM_ENVIRONMENT = "QMAILLDAP_CONTROL of the environment, else "


class Page:
    """The source of one page, parsed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = PROJECT / "docs" / f"{name}.8.rst"
        settings = {"_disable_config": True, "halt_level": 2}
        self.tree: Any = publish_doctree(self.path.read_text(), settings_overrides=settings)

    def sections(self) -> dict[str, Any]:
        """The sections by their titles, in their order."""
        return {
            section[0].astext(): section
            for section in self.tree.findall(nodes.section)
            if section.parent is self.tree
        }

    def text(self, section: str) -> str:
        """The words of a section, all blanks alike."""
        return " ".join(self.sections()[section].astext().split())

    def options(self, *sections: str) -> set[str]:
        """Those that are explained, in all or in the named sections."""
        parts = [self.sections()[name] for name in sections] or [self.tree]
        return {option.astext() for part in parts for option in part.findall(nodes.option_string)}

    def definitions(self, section: str) -> dict[str, str]:
        """What is said of each term of a section; where several share it, of each."""
        found = {}
        for item in self.sections()[section].findall(nodes.definition_list_item):
            for term in item[0].astext().split(", "):
                found[term] = " ".join(item[-1].astext().split())
        return found

    def literal_blocks(self) -> Iterator[str]:
        for block in self.tree.findall(nodes.literal_block):
            yield block.astext()


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[A-Za-z0-9][a-z0-9-]*", text))


def parser_of(command: str) -> argparse.ArgumentParser:
    subparsers = argparse.ArgumentParser().add_subparsers()
    import_module(f"qmailldap.commands.{command}").add_to(subparsers)
    parser: argparse.ArgumentParser = subparsers.choices[command]
    return parser


def options_of(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The options of a command, without those for help, and their defaults."""
    return {
        option: action.default
        for action in parser._actions
        for option in action.option_strings
        if action.dest != "help"
    }


def help_of(main: Any) -> str:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main(["--help"])
    return shown.getvalue()


def words(kind: Kind) -> str:
    assert kind.name is not None
    return kind.name.lower().replace("_", "-")


class PageTests(SynchronousTestCase):
    """Of every page."""

    def setUp(self) -> None:
        self.pages = [Page(name) for name in PAGES]

    def test_all_of_them_are_installed(self) -> None:
        setup = ConfigParser()
        setup.read(PROJECT / "setup.cfg")
        installed = setup["options.data_files"]["share/man/man8"].split()
        sources = {f"docs/{path.name}" for path in (PROJECT / "docs").glob("*.rst")}
        self.assertEqual(set(installed), sources)
        self.assertEqual(sources, {f"docs/{name}.8.rst" for name in PAGES})

    def test_they_become_roff_that_names_the_version_and_no_date(self) -> None:
        for page in self.pages:
            roff = build_script().manual_page(page.path, "1.2.3")
            (title,) = re.findall(r"^\.TH .*$", roff, re.MULTILINE)
            # Older versions of docutils write them without quotes where none are needed.
            words = [word.strip('"') for word in title.lower().replace("qmailldap 1", "1").split()]
            self.assertEqual(words, [".th", page.name, "8", "", "1.2.3", "qmailldap"])
            self.assertRegex(roff, rf"\.SH NAME\n{page.name} \\- [A-Za-z]")
            self.assertNotIn(str(PROJECT), roff)

    def test_one_that_docutils_warns_of_is_not_made(self) -> None:
        text = self.pages[0].path.read_text()
        for fault in ("\n**never closed\n", "\n`a_link`_\n", "\nTITLE\n====\n"):
            with tempfile.TemporaryDirectory() as directory:
                source = Path(directory, "page.8.rst")
                source.write_text(text + fault)
                with self.assertRaises(SystemMessage) as caught:
                    build_script().manual_page(source, "1")
            self.assertRegex(str(caught.exception), r"page\.8\.rst:\d+: ")

    def test_they_have_the_sections_of_a_manual_page(self) -> None:
        usual = ["SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "FILES", "EXIT STATUS"]
        usual += ["EXAMPLES", "SEE ALSO"]
        for page in self.pages:
            self.assertEqual([name for name in page.sections() if name in usual], usual)

    def test_the_synopsis_names_all_options_and_no_others(self) -> None:
        for page in self.pages:
            options = page.options()
            # A synopsis has the long form of an option that has both.
            short = {each for each in options if len(each) == 2 and page.name == "qmailldap-pop3"}
            self.assertEqual(options_in(page.text("SYNOPSIS")), options - short)

    def test_what_is_to_be_typed_fits_a_terminal(self) -> None:
        for page in self.pages:
            for line in "\n".join(page.literal_blocks()).splitlines():
                self.assertLessEqual(len(line), _WIDTH, line)

    def test_every_page_leads_to_the_others(self) -> None:
        for page in self.pages:
            for other in set(PAGES) - {page.name}:
                self.assertIn(f"{other}(8)", page.text("SEE ALSO"))


class AuthPopPageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.page = Page("auth_pop")

    def test_its_options_are_those_of_the_program(self) -> None:
        listed = re.findall(r"^  (-\S+)", request.USAGE, re.MULTILINE)
        self.assertEqual(self.page.options(), set(listed))
        for option in listed:
            request.Arguments.parse([option, "value", "subprogram"])  # raises no Usage

    def test_its_exit_codes_are_those_of_refusals(self) -> None:
        documented = {
            int(number): text.split(":")[0]
            for number, text in self.page.definitions("EXIT STATUS").items()
        }
        self.assertEqual(
            documented,
            {
                refusal.outcome.exit_code: refusal.outcome.text
                for refusal in Refusal
                # The client has read the answer by then, and the exit code is 0.
                if refusal is not Refusal.MEMBER_REFUSED and not refusal.is_of_a_listener
            },
        )

    def test_every_variable_of_the_subprogram_is_there(self) -> None:
        account = Account(
            b"joe", "uid=joe", 500, 500, "/home/joe", "/home/joe/Maildir", "Maildir/", True,
            Quota(1, 1), 1, None,
        )  # fmt: skip
        variables = {name.decode() for name in account.environment()}
        self.assertIn("DATASIZE", variables)
        self.assertEqual(variables - set(self.page.definitions("ENVIRONMENT")), set())

    def test_every_variable_that_is_read_is_there(self) -> None:
        documented = set(self.page.definitions("ENVIRONMENT"))
        read: set[str] = set()
        sources = [*Path(ownership.__file__).parent.glob("*.py")]
        sources += [PROJECT / "qmailldap" / "control" / "folder.py"]
        for source in sources:
            read |= set(re.findall(r'environ\w*\.get\("([A-Z_]+)"', source.read_text()))
            read |= set(re.findall(r'b"([A-Z_]+)" (?:not )?in \w*environ', source.read_text()))
        self.assertLessEqual({"QMAILLDAP_CONTROL", "NOPBS", "TCPREMOTEIP"}, read)
        self.assertEqual(read - documented, set())

    def test_the_bits_of_loglevel_are_all_there(self) -> None:
        text = self.page.definitions("ENVIRONMENT")["LOGLEVEL"]
        bits, default = text.split("Default: ")
        self.assertEqual([int(bit) for bit in re.findall(r"\d+", bits)], [int(bit) for bit in Kind])
        self.assertEqual(int(default.split(".")[0]), DEFAULT_MASK)

    def test_every_control_file_that_counts_is_there(self) -> None:
        text = self.page.text("FILES")
        # These are the server's alone.
        own = {"pop3trusted", "pop3limits", "requiretls", "cert.pem"}
        for file in {file.name for file in FILES} - own:
            self.assertRegex(text, rf"\b{file}\b")

    def test_its_limits_are_those_in_force(self) -> None:
        text = self.page.text("DESCRIPTION") + self.page.text("OPTIONS")
        self.assertIn(f"{request.MOST_OCTETS} octets in all", text)
        self.assertIn(f"within {request.LOGIN_LIMIT:g} seconds", text)
        self.assertIn(f"It has {ownership.PBS_LIMIT:g} seconds", text)
        self.assertEqual(REFUSAL_GRID, 2)
        self.assertIn("a multiple of two seconds", text)


class CommandsPageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.page = Page("qmailldap")

    def test_every_command_is_there_with_its_options(self) -> None:
        for command in commands.COMMANDS:
            documented = self.page.options(command.upper())
            self.assertEqual(documented, set(options_of(parser_of(command))), command)

    def test_there_are_no_other_commands(self) -> None:
        known = set(commands.COMMANDS)
        self.assertEqual(set(self.page.definitions("DESCRIPTION")), known)
        self.assertEqual(set(self.page.definitions("EXIT STATUS")), known - {"demo"})
        synopsis = self.page.text("SYNOPSIS")
        self.assertEqual(set(re.findall(r"qmailldap ([a-z]+)", synopsis)), known)

    def test_the_options_of_all_are_there(self) -> None:
        listed = options_in(help_of(commands.main)) - {"-h"}
        self.assertEqual(self.page.options("OPTIONS"), listed)

    def test_every_key_of_json_is_there(self) -> None:
        findings = Findings(
            Asked("user", "joe", "/control"),
            Verdict("no such user"),
            searches=(Search("user", "", "(uid=joe)"),),
            attributes=(Attribute("mailHost", (), None, "default", ""),),
            password=Password("hash"),
            mail=Mail(True),
            mailbox=Mailbox(500, 500, "/home", "/home/Maildir", Quota(), 0, Looked(500, 500, True)),
        )
        control = self.mktemp()
        os.mkdir(control)
        for command, text in (
            ("LOOKUP", lookup_json(findings)),
            ("SHOWCTL", showctl_json(inspect_control(control))),
        ):
            keys = set(re.findall(r'^ +"([a-z_]+)":', text, re.MULTILINE))
            self.assertLess({"value"}, keys)
            literals = {
                each.astext() for each in self.page.sections()[command].findall(nodes.literal)
            }
            self.assertEqual(keys - literals, set(), command)

    def test_every_key_of_what_a_running_server_tells_is_there(self) -> None:
        place = Places.of_all([Place(name="ldap1", up=True)])
        shown = state(servers=(place,), refusals=(refused(),))
        session = told(Presence())
        for command, text in (
            ("STATUS", status_json(shown)),
            ("SESSIONS", sessions_json([session])),
        ):
            keys = set(re.findall(r'^ +"([a-z_]+)":', text, re.MULTILINE))
            literals = {
                each.astext() for each in self.page.sections()[command].findall(nodes.literal)
            }
            self.assertEqual(keys - literals, set(), command)

    def test_defaults_are_those_in_force(self) -> None:
        defaults = options_of(parser_of("demo"))
        text = self.page.text("DEMO")
        self.assertIn(f"Default: {defaults['--directory']}.", text)
        self.assertIn(f"Default: {defaults['--port']}.", text)
        self.assertIn(f"Default: {DEFAULT_TYPE}.", self.page.text("DIGEST"))

    def test_every_type_of_a_password_value_is_there_with_its_cost(self) -> None:
        (table,) = (block for block in self.page.literal_blocks() if "{CRYPT}" in block)
        rows = [line.split() for line in table.splitlines()]
        self.assertEqual(
            {row[0]: row[1] for row in rows}, {t.name: t.prefix for t in TYPES.values()}
        )
        for row in rows:
            cost = TYPES[row[0]].rounds
            if cost is None:
                self.assertNotRegex(row[2], r"\d")
            else:
                self.assertEqual(row[2:4], [f"{cost.least}-{cost.most}", f"({cost.usual})"])


class ServerPageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.page = Page("qmailldap-pop3")

    def test_its_options_are_those_of_the_plugin(self) -> None:
        options = {f"-{name}" if len(name) == 1 else f"--{name}" for name in Options().synonyms}
        self.assertEqual(self.page.options(), options)

    def test_defaults_are_those_in_force(self) -> None:
        options = Options()
        options.parseOptions([])
        explained = {
            item.next_node(nodes.option_string).astext(): item[-1].astext()
            for item in self.page.tree.findall(nodes.option_list_item)
        }
        described = {name: text for name, text in explained.items() if "Default:" in text}
        self.assertEqual(len(described), len(explained) - 2)  # all but help and version
        for short, text in described.items():
            name = options.synonyms[short.lstrip("-")]
            value = options[name]
            if value:
                value = value[0] if isinstance(value, list) else value
                default = " ".join(text.split()).split("Default: ")[1].split(".")[0]
                if name == "hash-threads":  # that of another host is another
                    self.assertEqual(default, "one for each processor, 2 at least and 4 at most")
                    self.assertIn(value, (2, 3, 4))
                    continue
                self.assertEqual(default.removeprefix(FROM_ENVIRONMENT), str(value).split(".")[0])

    def test_the_bits_of_loglevel_are_all_there(self) -> None:
        documented = {
            int(bit): text.split(":")[0] for bit, text in self.page.definitions("LOGLEVEL").items()
        }
        self.assertEqual(documented, {int(kind): words(kind) for kind in Kind})
        self.assertIn(f"{DEFAULT_MASK} if it is unset", self.page.text("LOGLEVEL"))
