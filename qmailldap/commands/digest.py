"""`qmailldap digest`: password values for the directory, made and checked by the server's rules.

Twisted is not imported, which would be most of what a run takes.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from qmailldap.commands.asking import ask_password
from qmailldap.passwords import MalformedHash, parse_password, why_no_match
from qmailldap.passwords.digests import decode_base64
from qmailldap.passwords.making import (
    BCRYPT_FORMAT,
    DEFAULT_TYPE,
    DES_FORMAT,
    MD5_FORMAT,
    ORIGINAL_TYPES,
    TYPES,
    NotMade,
    PasswordType,
    crypt_type,
)

__all__ = ["NOT_EQUAL", "OUT_OF_MEMORY", "RECORD_INCORRECT", "add_to"]

NOT_EQUAL = 3
OUT_OF_MEMORY = 8
RECORD_INCORRECT = 25
"""The exit codes of refusals, whose table cannot be had without Twisted; a test compares them."""

_DES_MOST = 8
"""Octets of a password that DES looks at."""

_ALL = "all"
_EVERY_SPACE = str.maketrans("", "", " \t\r\n")

_DESCRIPTION = """\
Make a value for the attribute userPassword; or, with -v, tell whether a
password matches one.

An argument can be read by every user of the host, in the list of processes.
A PASSWORD that is not given is asked for; where standard input is no terminal,
it is the first line of that. Write -- before one that begins with -.
"""


def add_to(commands: Any) -> None:
    """Make the command known to an argparse parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "digest",
        help="make and check password values",
        usage="%(prog)s [-t TYPE] [-5 | -b | -C | -f FORMAT] [--rounds N]\n"
        "                        [-s BASE64 | -S HEX] [-c] [PASSWORD]\n"
        "       %(prog)s -v [PASSWORD] HASH",
        description=_DESCRIPTION,
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "-t",
        dest="type",
        metavar="TYPE",
        type=_type_name,
        help=f"the type of the value, of the list below (default: {DEFAULT_TYPE}); {_ALL}: one of"
        " each of the original's types",
    )
    formats = parser.add_mutually_exclusive_group()
    for letter, format in (("5", MD5_FORMAT), ("b", BCRYPT_FORMAT), ("C", DES_FORMAT)):
        formats.add_argument(
            f"-{letter}",
            dest="format",
            action="store_const",
            const=format,
            help=f"type crypt with the format {format}",
        )
    formats.add_argument(
        "-f",
        dest="format",
        metavar="FORMAT",
        help="type crypt with a setting of crypt(5) in which each X stands for a character of salt",
    )
    parser.add_argument("--rounds", metavar="N", type=int, help="the cost, for types that have one")
    salts = parser.add_mutually_exclusive_group()
    salts.add_argument(
        "-s", dest="salt", metavar="BASE64", type=_base64, help="the salt (default: a random one)"
    )
    salts.add_argument(
        "-S", dest="salt", metavar="HEX", type=_hexadecimal, help="the salt in hexadecimal"
    )
    parser.add_argument(
        "-c", dest="check", action="store_const", const=False, help="make a value (the default)"
    )
    parser.add_argument(
        "-v",
        dest="check",
        action="store_const",
        const=True,
        help=f"check: exit code 0 for equal, {NOT_EQUAL} for not equal,"
        f" {RECORD_INCORRECT} for a HASH that is malformed",
    )
    parser.add_argument("words", metavar="PASSWORD, HASH", nargs="*", help="see above")
    parser.set_defaults(run=partial(_run, parser))
    _show_no_arguments(parser)


def _show_no_arguments(parser: argparse.ArgumentParser) -> None:
    """Have the parser say what is wrong without showing it: it may be a password.

    argparse quotes what it refuses, and leaves unknown options to the parser above.
    """
    parse = parser.parse_known_args

    def parse_all(*arguments: Any, **keywords: Any) -> Any:
        try:
            options, unknown = parse(*arguments, **keywords)
        except argparse.ArgumentError as error:
            parser.error(re.split("['\"]", str(error))[0].rstrip(" :"))
        if unknown:
            parser.error("an unknown option; write -- before a PASSWORD that begins with -")
        return options, unknown

    parser.parse_known_args = parse_all  # type: ignore[method-assign]


def _epilog() -> str:
    rows = [("TYPE", "values begin", "--rounds (default)", "")]
    for each in TYPES.values():
        cost = each.rounds
        rounds = "" if cost is None else f"{cost.least}-{cost.most} ({cost.usual})"
        rows.append((each.name, each.prefix, rounds, each.remark))
    return "\n".join(f"{row[0]:14}{row[1]:16}{row[2]:23}{row[3]}".rstrip() for row in rows)


def _type_name(text: str) -> str:
    name = text.lower()
    if name not in TYPES and name != _ALL:
        raise argparse.ArgumentTypeError(f"no such type; use one of {', '.join(TYPES)}, {_ALL}")
    return name


def _base64(text: str) -> bytes:
    salt = decode_base64(os.fsencode(text.translate(_EVERY_SPACE)))
    if salt is None:
        raise argparse.ArgumentTypeError("this is not base64")
    return salt


def _hexadecimal(text: str) -> bytes:
    try:
        return bytes.fromhex(text.translate(_EVERY_SPACE))
    except ValueError:
        raise argparse.ArgumentTypeError("this is not hexadecimal") from None


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    # The octets that were typed, whatever the locale makes of them.
    words = [os.fsencode(word) for word in options.words]
    try:
        if options.check:
            if not 1 <= len(words) <= 2:
                parser.error("-v takes a PASSWORD and a HASH, or a HASH alone")
            return _check(words)
        if len(words) > 1:
            parser.error("one PASSWORD is taken; quote one that has blanks in it")
        return _make(parser, options, words)
    except MemoryError as error:
        _complain(f"{error}: out of memory")
        return OUT_OF_MEMORY


def _check(words: Sequence[bytes]) -> int:
    try:
        stored = parse_password(words[-1])
    except MalformedHash as error:
        _complain(f"malformed hash: {error}")
        return RECORD_INCORRECT
    password = words[0] if len(words) == 2 else ask_password("Password")
    if stored.verify(password):
        print("passwords are equal.")
        return 0
    print("passwords are NOT equal.")
    why = why_no_match(words[-1])
    if why:
        _complain(f"no password matches this value: {why}")
    return NOT_EQUAL


def _make(
    parser: argparse.ArgumentParser, options: argparse.Namespace, words: Sequence[bytes]
) -> int:
    types = _types(parser, options)
    password = words[0] if words else ask_password("Password", confirm=True)
    if not password:
        _complain("an empty password: the server lets nobody in with one")
        return 1
    result = 0
    for each in types:
        try:
            value = each.make(password, salt=options.salt, rounds=options.rounds)
        except NotMade as error:
            _complain(f"{each.name}: {error}")
            result = 1
            continue
        print(value.decode("ascii"))
        if len(password) > _DES_MOST and parse_password(value).cost == "CRYPT DES":
            _complain(f"{each.name}: DES looks at the first {_DES_MOST} octets of a password only")
    return result


def _types(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[PasswordType]:
    known = dict(TYPES)
    name = options.type
    if options.format is not None:
        if name not in (None, "crypt", _ALL):
            parser.error(f"-5, -b, -C and -f are formats of crypt, which -t {name} is not")
        try:
            known["crypt"] = crypt_type(options.format)
        except NotMade as error:
            parser.error(f"-f: {error}")
    if name == _ALL:
        types = [known[each] for each in ORIGINAL_TYPES]
    else:
        types = [known[name or ("crypt" if options.format is not None else DEFAULT_TYPE)]]
    if options.rounds is not None and types[0].rounds is None:
        parser.error("--rounds: this type has none to choose")
    return types


def _complain(text: str) -> None:
    print(f"qmailldap digest: {text}", file=sys.stderr)
