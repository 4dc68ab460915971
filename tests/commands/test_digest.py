"""`qmailldap digest` by its command line, against what the original prints."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout

import attrs
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.commands import main
from qmailldap.commands.digest import NOT_EQUAL, OUT_OF_MEMORY, RECORD_INCORRECT
from qmailldap.passwords import parse_password
from qmailldap.passwords.digests import find_digest
from qmailldap.passwords.making import ORIGINAL_TYPES, TYPES
from qmailldap.refusal import Refusal

SALT = "MDEyMzQ1Njc4OWFiY2RlZmdo"
UMLAUTS = "pässwörd"

# What the original's digest prints, compiled with libxcrypt 4.4.33: its arguments but for the
# types of -5, -b and -f, which it needs -t crypt for, and its output.
ORIGINAL_ALL = (
    (
        ("-s", SALT, "secret"),
        """\
{CRYPT}MDRkC47WT6Z2k
{MD4}Z9Pa/vY/8AYDru83ac+/DQ==
{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==
{NS-MTA-MD5}ad4adf5ffcacf6b25edc689b7583464830313233343536373839616263646566
{SMD5}rkHK0ymxUrrG3fRtqT+cijAxMjM0NTY3ODlhYmNkZWZnaA==
{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=
{SSHA}FtjhQVTmvItoSYjEvxxz0I42PJEwMTIzNDU2Nzg5YWJjZGVmZ2g=
{RMD160}zZi/AgLvB+OOh/a9lEXl5zMeLHg=
""",
    ),
    (
        ("-s", SALT, UMLAUTS),
        """\
{CRYPT}MDXglO6/vtX.U
{MD4}hMGmo3nq14i3gytljOc9qA==
{MD5}EoQeS6XjfS+/x4RYxnFK3g==
{NS-MTA-MD5}ccd8f976d82ee6aa0c8c31fcdee8011730313233343536373839616263646566
{SMD5}xz6C9Ak6f9laHFIM9HxWGTAxMjM0NTY3ODlhYmNkZWZnaA==
{SHA}9Rfd8dMqES/xrVXGbRsSyzjn6Pc=
{SSHA}YioxYalR4jNfoUmPshCa/PRg/dUwMTIzNDU2Nzg5YWJjZGVmZ2g=
{RMD160}Abj+OF2Uw5LZ/VuObMd+lSlIqp8=
""",
    ),
)
ORIGINAL_ONE = (
    (("-t", "SSHA", "-S", "41424344", "secret"), "{SSHA}OfG1ulGPnfWaSHWBzIkRSoUck49BQkNE"),
    (("-tssha", "-S", "4142 4344", "secret"), "{SSHA}OfG1ulGPnfWaSHWBzIkRSoUck49BQkNE"),
    (("-t", "smd5", "-s", "QUJDRA==", "secret"), "{SMD5}TmWhty2qnH0xOmZfwCMoekFCQ0Q="),
    (("-t", "smd5", "-s", "QUJ DRA = = ", "secret"), "{SMD5}TmWhty2qnH0xOmZfwCMoekFCQ0Q="),
    (("-t", "smd5", "-s", "QUJDREU=", "secret"), "{SMD5}XM2rPR31Z8ASCXjRzu8FokFCQ0RF"),
    (("-t", "smd5", "-S", "4a4B4c4d", "secret"), "{SMD5}NwyzHpcmdqcMo7qPEhW7K0pLTE0="),
    (
        ("-t", "ns-mta-md5", "-S", "4142434445464748494a4b4c4d4e4f50", "secret"),
        "{NS-MTA-MD5}264fa2f0a8aeff808a790a5205cdc2194142434445464748494a4b4c4d4e4f50",
    ),
    (("-t", "crypt", "-s", "QUI=", "secret"), "{CRYPT}QUhb6DDsBf206"),
    (("-C", "-s", "QUI=", "secret"), "{CRYPT}QUhb6DDsBf206"),
    (("-C", "-s", SALT, "verylongsecretindeed"), "{CRYPT}MDAn.T6ylcp2E"),
    (("-5", "-s", SALT, "secret"), "{CRYPT}$1$MDEyMzQ1$ZibvosVGEhiGMCN1z//gG/"),
    (("-5", "-s", SALT, UMLAUTS), "{CRYPT}$1$MDEyMzQ1$CSjnqA6a6luvWSAbfTNlX/"),
    (
        ("-5", "-s", "++++//////////////////////++", "secret"),
        "{CRYPT}$1$++++////$l7WLI2PQChvpj9nSwqyUl/",
    ),
    (
        ("-b", "-s", SALT, "secret"),
        "{CRYPT}$2a$07$MDEyMzQ1Njc4OWFiY2RlZedyuB/EyNCF6YGPo8TBlH7Fm938fjc/G",
    ),
    (
        ("-b", "-s", SALT, UMLAUTS),
        "{CRYPT}$2a$07$MDEyMzQ1Njc4OWFiY2RlZevez67Heqda4.EZZQ7sX9bWbdP1XINh2",
    ),
    (
        ("-f", "$5$XXXXXXXXXXXX$", "-s", SALT, "secret"),
        "{CRYPT}$5$MDEyMzQ1Njc4$ESS.2X0jwclZVFsChCpT8fvDcZALHwn0i56.iPPh4A8",
    ),
    (
        ("-f", "$6$rounds=1000$XXXX", "-t", "crypt", "-s", SALT, "secret"),
        (
            "{CRYPT}$6$rounds=1000$MDEy$5aCybDrdPEJFrmF3ddKbq4BFxbS3Okg0ySi59E3V6C2GGx7ed51osvJ61R.Dii00"
            "QDnq.n7urHJhB5ZIKVP8R1"
        ),
    ),
    (
        ("-f", "$6$abXXXX$cd", "-s", SALT, "secret"),
        (
            "{CRYPT}$6$abMDEy$i9vOaQUHehi2drCEWbvACLsukCVweuBWz5EBXzJnilAPizH6WQ0y4bh18UiY8HzC4bJ8/ceuZc"
            "SmyRGmkecDT1"
        ),
    ),
    (
        ("-f", "$2b$05$XXXXXXXXXXXXXXXXXXXXXX", "-s", SALT, "secret"),
        "{CRYPT}$2b$05$MDEyMzQ1Njc4OWFiY2RlZew1cVLIiQtWz7nZ6XcNLeNTG3m2uHnRa",
    ),
    (("-f", "_J9..XXXX", "-s", SALT, "secret"), "{CRYPT}_J9..MDEyuVbdvREwomw"),
    (("-f", "XXmoreXX", "-s", SALT, "secret"), "{CRYPT}MDRkC47WT6Z2k"),
)


@attrs.frozen
class Said:
    """How the command ended and what it printed."""

    code: int | str | None
    output: str
    errors: str


class DigestTestCase(SynchronousTestCase):
    def run_digest(self, *arguments: str, typed: bytes = b"") -> Said:
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))
        output, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(errors):
            try:
                code: int | str | None = main(["digest", *arguments])
            except SystemExit as ended:
                code = ended.code
        return Said(code, output.getvalue(), errors.getvalue())

    def made(self, *arguments: str, typed: bytes = b"") -> bytes:
        """The value of the one line that is printed."""
        said = self.run_digest(*arguments, typed=typed)
        self.assertEqual((said.code, said.output.count("\n")), (0, 1), said.errors)
        return said.output.encode("ascii").removesuffix(b"\n")

    def refused(self, code: int, *arguments: str, typed: bytes = b"") -> str:
        """What is said on standard error."""
        said = self.run_digest(*arguments, typed=typed)
        self.assertEqual((said.code, said.output), (code, ""), said.errors)
        return said.errors


class OriginalTests(DigestTestCase):
    def test_all_types_are_listed_as_the_original_does(self) -> None:
        has_all = find_digest("ripemd160") is not None
        for arguments, output in ORIGINAL_ALL:
            said = self.run_digest("-t", "all", *arguments)
            if not has_all:
                # OpenSSL without its legacy digests: the last line is missing, and said to be.
                output = "".join(output.splitlines(keepends=True)[:-1])
                self.assertIn("rmd160", said.errors.lower())
            self.assertEqual((said.code, said.output), (0 if has_all else 1, output), said.errors)

    def test_one_value_is_the_originals(self) -> None:
        for arguments, output in ORIGINAL_ONE:
            self.assertEqual(self.made(*arguments).decode(), output, arguments)

    def test_what_the_original_makes_is_equal(self) -> None:
        for arguments, output in ORIGINAL_ONE:
            said = self.run_digest("-v", arguments[-1], output)
            self.assertEqual((said.code, said.output), (0, "passwords are equal.\n"))

    def test_a_type_of_the_list_that_cannot_be_made_is_told_beside_it(self) -> None:
        # The original makes neither of these three with a salt of one octet.
        said = self.run_digest("-t", "all", "-S", "41", "secret")
        self.assertEqual(said.code, 1)
        self.assertEqual(
            [line.partition("}")[0] for line in said.output.splitlines()],
            ["{MD4", "{MD5", "{SHA", "{RMD160"],
        )
        for name in ("crypt", "ns-mta-md5", "smd5", "ssha"):
            self.assertIn(f"digest: {name}: the salt is", said.errors)

    def test_a_bad_salt_is_a_usage_error_that_does_not_show_it(self) -> None:
        for option, salts in (
            ("-s", ("QUJDRA", "Zq7x!", "Zq7xé")),
            ("-S", ("4142434", "Zq7x", "é")),
        ):
            for salt in salts:
                errors = self.refused(2, option, salt, "secret")
                self.assertIn(f"argument {option}", errors)
                self.assertNotIn("Zq7x", errors)

    def test_the_list_has_the_format_that_was_asked_for(self) -> None:
        said = self.run_digest("-5", "-t", "all", "secret")
        self.assertTrue(said.output.startswith("{CRYPT}$1$"), said.errors)
        self.assertEqual(len(said.output.splitlines()), len(ORIGINAL_TYPES))

    def test_to_make_is_what_is_done_with_c(self) -> None:
        self.assertEqual(
            self.made("-v", "-c", "-t", "md5", "secret"), self.made("-t", "md5", "secret")
        )

    def test_plus_is_no_character_of_bcrypts_salt(self) -> None:
        # The original prints {CRYPT}*0 for this.
        value = self.made("-b", "-s", "+" * 24, "secret")
        self.assertTrue(value.startswith(b"{CRYPT}$2a$07$" + b"." * 22))
        self.assertTrue(parse_password(value).verify(b"secret"))


class MakingTests(DigestTestCase):
    def test_the_default_is_bcrypt(self) -> None:
        value = self.made("secret")
        self.assertTrue(value.startswith(b"{CRYPT}$2b$12$"))
        self.assertTrue(parse_password(value).verify(b"secret"))

    def test_every_type_is_made_by_its_name(self) -> None:
        for name, each in TYPES.items():
            rounds = [f"--rounds={each.rounds.least}"] if each.rounds is not None else []
            value = self.made("-t", name.upper(), *rounds, "secret")
            self.assertTrue(parse_password(value).verify(b"secret"), name)

    def test_the_password_is_the_first_line_of_standard_input(self) -> None:
        value = self.made("-t", "ssha", typed=b"p\xe4ss word \r\nmore\n")
        self.assertTrue(parse_password(value).verify(b"p\xe4ss word \r"))

    def test_an_argument_is_the_octets_that_were_typed(self) -> None:
        for octets in (b"p\xe4ss", UMLAUTS.encode(), b"\xff\xfe"):
            value = self.made("-t", "ssha", os.fsdecode(octets))
            self.assertTrue(parse_password(value).verify(octets))

    def test_a_password_that_begins_with_a_hyphen_comes_behind_two(self) -> None:
        value = self.made("-t", "ssha", "--", "-secret")
        self.assertTrue(parse_password(value).verify(b"-secret"))

    def test_rounds_are_the_cost(self) -> None:
        self.assertIn(b"$2b$05$", self.made("--rounds", "5", "secret"))
        self.assertIn(
            b"}1234$", self.made("--rounds", "1234", "-t", "pbkdf2-sha256", typed=b"secret\n")
        )

    def test_rounds_beyond_what_the_server_takes_are_refused(self) -> None:
        self.assertIn("4 to 16", self.refused(1, "--rounds", "17", "secret"))

    def test_rounds_of_a_type_without_are_a_usage_error(self) -> None:
        for arguments in (("-t", "ssha"), ("-5",), ("-t", "all")):
            self.assertIn("--rounds", self.refused(2, *arguments, "--rounds", "5", "secret"))

    def test_a_format_for_another_type_is_a_usage_error(self) -> None:
        for option in ("-5", "-b", "-C", "-fXX"):
            self.assertIn("-t ssha", self.refused(2, option, "-t", "ssha", "secret"))

    def test_two_formats_are_a_usage_error(self) -> None:
        self.assertIn("not allowed with", self.refused(2, "-5", "-b", "secret"))

    def test_a_format_without_a_place_for_the_salt_is_a_usage_error(self) -> None:
        self.assertIn("-f", self.refused(2, "-f", "zz", "secret"))

    def test_a_type_that_is_not_known_is_told_which_are(self) -> None:
        errors = self.refused(2, "-t", "rot13", "secret")
        for name in TYPES:
            self.assertIn(name, errors)

    def test_an_empty_password_is_refused(self) -> None:
        self.assertIn("empty", self.refused(1, ""))
        self.assertIn("empty", self.refused(1, typed=b"\n"))

    def test_no_password_is_told(self) -> None:
        said = self.run_digest()
        self.assertIn("no password was given", str(said.code))
        self.assertEqual(said.output, "")

    def test_a_password_with_a_nul_is_refused(self) -> None:
        self.assertIn("NUL", self.refused(1, "-t", "ssha", typed=b"a\0b\n"))

    def test_a_password_that_would_be_cut_is_refused(self) -> None:
        for arguments in ((), ("-b",), ("-f", "$2b$05$" + "X" * 22)):
            self.assertIn("72 octets", self.refused(1, *arguments, "s" * 73))

    def test_a_password_that_des_cuts_is_made_and_said_to_be_cut(self) -> None:
        for arguments in (("-C",), ("-t", "crypt"), ("-t", "all"), ("-f", "XX")):
            said = self.run_digest(*arguments, "secretsecret")
            self.assertEqual(said.code, 0)
            self.assertIn("first 8 octets", said.errors)
            self.assertEqual(self.run_digest(*arguments, "secrets8").errors, "")
        self.assertEqual(self.run_digest("-5", "secretsecret").errors, "")

    def test_no_error_shows_the_password(self) -> None:
        mark = "Zq7xZq7x"
        for arguments in (
            ("a", mark),
            (mark, "a"),
            (mark, mark, mark),
            (f"--{mark}",),
            (f"-{mark}",),
            (f"-s{mark}!",),
            (f"-t{mark}", mark),
            (f"-b{mark}",),
            (f"-5'{mark}",),
            (f"-vC{mark}", mark),
            (f"--rounds={mark}", mark),
            ("-v", mark, mark, mark),
            ("-v", f"--{mark}", mark),
            ("-v", mark, f"-{mark}"),
            ("-f", "zz", mark),
            ("-t", "ssha", "-S", "41", mark),
            ("--rounds", "99", mark),
            (mark * 10,),
        ):
            said = self.run_digest(*arguments)
            self.assertIn(said.code, (1, 2))
            self.assertNotIn("Zq7x", said.errors + said.output)

    def test_without_memory_it_says_so(self) -> None:
        from qmailldap.passwords import crypted

        def fail(password: bytes, setting: bytes) -> bytes:
            raise MemoryError("crypt(3) got no memory")

        self.patch(crypted, "crypt", fail)
        self.assertIn("memory", self.refused(OUT_OF_MEMORY, "-t", "yescrypt", "secret"))
        self.assertIn("memory", self.refused(OUT_OF_MEMORY, "-v", "secret", "abNANd1rDfiNc"))


class CheckingTests(DigestTestCase):
    VALUE = "{SSHA}OfG1ulGPnfWaSHWBzIkRSoUck49BQkNE"

    def test_equal(self) -> None:
        said = self.run_digest("-v", "secret", self.VALUE)
        self.assertEqual(said, Said(0, "passwords are equal.\n", ""))

    def test_not_equal(self) -> None:
        said = self.run_digest("-v", "Secret", self.VALUE)
        self.assertEqual(said, Said(NOT_EQUAL, "passwords are NOT equal.\n", ""))

    def test_the_password_is_asked_for_where_only_the_hash_is_given(self) -> None:
        self.assertEqual(self.run_digest("-v", self.VALUE, typed=b"secret\n").code, 0)
        self.assertEqual(self.run_digest("-v", self.VALUE, typed=b"Secret\n").code, NOT_EQUAL)

    def test_an_option_may_stand_anywhere(self) -> None:
        self.assertEqual(self.run_digest("secret", self.VALUE, "-v").code, 0)

    def test_a_malformed_value_is_told_without_showing_it(self) -> None:
        for value in ("{SSHA}Zq7x", "{NS-MTA-MD5}Zq7x", "$6$rounds=99999999$Zq7x$Zq7x"):
            # Before the password is asked for: it would be of no use.
            for arguments in (("secret", value), (value,)):
                errors = self.refused(RECORD_INCORRECT, "-v", *arguments)
                self.assertIn("malformed", errors)
                self.assertNotIn("Zq7x", errors)

    def test_a_value_that_nothing_matches_is_said_to_be_one(self) -> None:
        for value in ("*", "", "$9$abc", "{SASL}joe@example.org", "{PLAIN}secret"):
            said = self.run_digest("-v", "secret", value)
            self.assertEqual((said.code, said.output), (NOT_EQUAL, "passwords are NOT equal.\n"))
            self.assertIn("no password matches", said.errors)

    def test_clear_text_is_said_to_be_no_value(self) -> None:
        for value in ("Zq7xZq7x", "{CRYPT}Zq7xZq7x", "{CLEARTEXT}Zq7xZq7x"):
            said = self.run_digest("-v", "Zq7xZq7x", value)
            self.assertEqual((said.code, said.output), (NOT_EQUAL, "passwords are NOT equal.\n"))
            self.assertIn("clear text", said.errors)
            self.assertNotIn("Zq7x", said.errors)

    def test_no_value_is_a_usage_error(self) -> None:
        self.assertIn("HASH", self.refused(2, "-v"))
        self.assertIn("HASH", self.refused(2, "-v", "a", "b", "c"))

    def test_exit_codes_are_those_of_the_refusals(self) -> None:
        for code, refusal in (
            (NOT_EQUAL, Refusal.WRONG_CREDENTIALS),
            (OUT_OF_MEMORY, Refusal.OUT_OF_MEMORY),
            (RECORD_INCORRECT, Refusal.RECORD_INCORRECT),
        ):
            self.assertEqual(code, refusal.outcome.exit_code)


class HelpTests(DigestTestCase):
    def test_it_lists_the_types_and_says_which_are_weak(self) -> None:
        said = self.run_digest("--help")
        self.assertEqual(said.code, 0)
        for name, each in TYPES.items():
            (row,) = (line for line in said.output.splitlines() if line.startswith(f"{name} "))
            self.assertIn(each.prefix, row)
            self.assertEqual("weak" in row, name in ORIGINAL_TYPES, row)

    def test_it_warns_of_the_process_list(self) -> None:
        self.assertIn("list of processes", self.run_digest("--help").output)
