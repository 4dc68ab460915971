"""The tac file against the table of options: each is shown, with its default."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.options import DEFAULT_LISTEN, Options

TAC = Path(__file__).parent.parent / "tac" / "qmailldap-pop3.tac"

_OF_THE_HOST = {"hash-threads"}
"""Options whose defaults are not the same everywhere."""


def shown() -> list[str]:
    """The options that are commented out there, as arguments."""
    return re.findall(r'^    # "(--.*)",$', TAC.read_text(), re.MULTILINE)


class TacTests(SynchronousTestCase):
    def test_every_option_is_shown_once(self) -> None:
        names = [argument.removeprefix("--").partition("=")[0] for argument in shown()]
        options = set(Options().synonyms.values()) - {"help", "version"}
        self.assertEqual(sorted(names), sorted(options))

    def test_what_is_shown_is_taken_by_the_server(self) -> None:
        options = Options()
        options.parseOptions(shown())
        self.assertEqual(options["pop3s"], ["tcp:995"])

    def test_defaults_are_those_of_the_server(self) -> None:
        options = Options()
        options.parseOptions(shown())
        for name, _, default, *_ in Options.optParameters:
            if default is not None and name not in _OF_THE_HOST:
                self.assertEqual(str(options[name]), str(default), name)
        self.assertEqual(options["listen"], [DEFAULT_LISTEN])
