"""SASL: the mechanisms by themselves, and AUTH as a client sees it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.pop3.sasl import (
    CramMD5,
    Login,
    MalformedResponse,
    Mechanism,
    Plain,
    PlainLogin,
    apop_login,
    decode,
    encode,
    initial,
)
from tests.pop3.maildrop import PASSWORD, Server

CHALLENGE = b"<1.2.ab@mail.example.org>"
SUCCESS = b"+OK \r\n"
WRONG = b"-ERR [AUTH] authorization failed\r\n"

# As many of the octets that matter as of all others.
SAID = st.lists(
    st.one_of(st.binary(max_size=5), st.sampled_from([b"\0", b"joe", b" ", b"=", b"\xff"]))
).map(b"".join)


def b64(text: bytes) -> bytes:
    return base64.b64encode(text)


def hmac_md5(challenge: bytes, password: bytes = PASSWORD) -> bytes:
    return hmac.new(password, challenge, "md5").hexdigest().encode()


class Base64Tests(SynchronousTestCase):
    @given(st.binary(max_size=100))
    def test_what_is_encoded_is_decoded(self, octets: bytes) -> None:
        self.assertEqual(decode(encode(octets)), octets)

    @given(st.one_of(st.binary(max_size=20), st.text("Ab9+/=", max_size=9).map(str.encode)))
    def test_nothing_but_canonical_base64_is_taken(self, line: bytes) -> None:
        try:
            octets = decode(line)
        except MalformedResponse:
            return
        self.assertEqual(encode(octets), line)

    def test_what_others_would_pass_over_is_malformed(self) -> None:
        for line in (b"=", b"YQ", b"YQ=", b"YQ===", b"YR==", b"Y Q==", b"YQ==\r", b"-_==", b"\xff"):
            self.assertRaises(MalformedResponse, decode, line)

    def test_an_initial_response_may_be_empty(self) -> None:
        self.assertEqual(initial(b"="), b"")
        self.assertEqual(initial(b"YQ=="), b"a")


class MechanismTests(SynchronousTestCase):
    def login(self, mechanism: Mechanism, *responses: bytes | None) -> Login:
        *before, last = responses
        for response in before:
            self.assertIsInstance(mechanism.step(response), bytes)
        login = mechanism.step(last)
        assert isinstance(login, Login)
        return login

    def test_plain_takes_user_and_password(self) -> None:
        for said in ("\0jö\0päss wörd", "jö\0jö\0päss wörd"):
            login = self.login(Plain(), said.encode())
            self.assertEqual((login.user, login.password), ("jö".encode(), "päss wörd".encode()))
            self.assertIsNone(login.refused)

    def test_plain_lets_nobody_act_as_another(self) -> None:
        login = self.login(Plain(), b"root\0joe\0" + PASSWORD)
        self.assertIsNotNone(login.refused)

    def test_plain_wants_three_parts_a_user_and_utf_8(self) -> None:
        for said in (
            b"",
            b"joe",
            b"\0joe",
            b"\0\0x",
            b"\0joe\0a\0b",
            b"\0jo\xe9\0x",
            b"\0joe\0\xff",
        ):
            self.assertRaises(MalformedResponse, Plain().step, said)

    def test_login_asks_for_the_user_and_then_for_the_password(self) -> None:
        mechanism = PlainLogin()
        self.assertEqual(mechanism.step(None), b"Username:")
        self.assertEqual(mechanism.step(b"joe"), b"Password:")
        login = mechanism.step(b"x y")
        assert isinstance(login, Login)
        self.assertEqual((login.user, login.password), (b"joe", b"x y"))

    def test_login_takes_the_user_first(self) -> None:
        login = self.login(PlainLogin(), b"joe", b"")
        self.assertEqual((login.user, login.password), (b"joe", b""))

    def test_cram_md5_wants_a_user_and_a_digest_of_its_challenge(self) -> None:
        mechanism = CramMD5(CHALLENGE)
        self.assertEqual(mechanism.step(None), CHALLENGE)
        login: Any = mechanism.step(b"joe doe " + hmac_md5(CHALLENGE).upper())
        self.assertEqual((login.user, login.password), (b"joe doe", b""))
        self.assertTrue(login.credentials.checkPassword(PASSWORD))
        self.assertFalse(login.credentials.checkPassword(b"x"))

    def test_cram_md5_takes_nothing_before_its_challenge(self) -> None:
        said = b"joe " + hmac_md5(CHALLENGE)
        self.assertRaises(MalformedResponse, CramMD5(CHALLENGE).step, said)

    def test_apop_is_a_digest_of_challenge_and_password(self) -> None:
        digest = hashlib.md5(CHALLENGE + PASSWORD).hexdigest().encode()
        login: Any = apop_login(CHALLENGE, b"joe", digest)
        self.assertTrue(login.credentials.checkPassword(PASSWORD))
        self.assertFalse(login.credentials.checkPassword(b"x"))
        for other in (b"", b"x" * 32, digest[:-1], digest + b"0"):
            self.assertRaises(MalformedResponse, apop_login, CHALLENGE, b"joe", other)

    @given(
        st.sampled_from([Plain, PlainLogin, lambda: CramMD5(CHALLENGE)]),
        st.booleans(),
        st.lists(SAID, min_size=1, max_size=5),
    )
    def test_anything_ends_in_a_login_or_is_malformed(
        self, make: Any, asks: bool, responses: list[bytes]
    ) -> None:
        mechanism = make()
        for response in [None, *responses] if asks else responses:
            try:
                answer = mechanism.step(response)
            except MalformedResponse as malformed:
                self.assertTrue(str(malformed).isascii())
                return
            if isinstance(answer, Login):
                self.assertTrue(answer.user)
                self.assertNotIn(b"\0", answer.user + answer.password)
                return

    @given(st.text(min_size=1).filter(lambda text: "\0" not in text), st.text())
    def test_what_is_said_by_plain_arrives(self, user: str, password: str) -> None:
        password = password.replace("\0", "")
        login = self.login(Plain(), f"\0{user}\0{password}".encode())
        self.assertEqual((login.user, login.password), (user.encode(), password.encode()))

    def test_a_login_shows_no_password(self) -> None:
        self.assertNotIn("pass word", repr(self.login(Plain(), b"\0joe\0" + PASSWORD)))


class AuthTests(SynchronousTestCase):
    def assert_logged_in(self, server: Server) -> None:
        self.assertEqual(server.say(b"STAT\r\n"), b"+OK 0 0\r\n")

    def test_auth_alone_lists_the_mechanisms(self) -> None:
        self.assertEqual(Server().say(b"AUTH\r\n"), b"+OK \r\nPLAIN\r\nLOGIN\r\n.\r\n")

    def test_capa_lists_them_before_the_login_and_behind_it(self) -> None:
        for server in (Server(), Server().log_in()):
            self.assertIn(b"\r\nSASL PLAIN LOGIN\r\n", server.say(b"CAPA\r\n"))

    def test_plain_with_an_initial_response(self) -> None:
        server = Server()
        said = b"auth plain " + b64(b"\0joe\0" + PASSWORD) + b"\r\n"
        self.assertEqual(server.say(said), SUCCESS)
        self.assert_logged_in(server)

    def test_plain_without_one(self) -> None:
        server = Server()
        self.assertEqual(server.say(b"AUTH PLAIN\r\n"), b"+ \r\n")
        self.assertEqual(server.say(b64(b"\0joe\0" + PASSWORD) + b"\r\n"), SUCCESS)
        self.assert_logged_in(server)

    def test_login_with_and_without_an_initial_response(self) -> None:
        for begin in (b"AUTH LOGIN\r\n", b"AUTH LOGIN " + b64(b"joe") + b"\r\n"):
            server = Server()
            answer = server.say(begin)
            if len(begin) < 14:
                self.assertEqual(answer, b"+ VXNlcm5hbWU6\r\n")
                answer = server.say(b64(b"joe") + b"\r\n")
            self.assertEqual(answer, b"+ UGFzc3dvcmQ6\r\n")
            self.assertEqual(server.say(b64(PASSWORD) + b"\r\n"), SUCCESS)
            self.assert_logged_in(server)

    def test_an_exchange_may_be_pipelined_and_arrive_in_any_pieces(self) -> None:
        server = Server()
        said = b"AUTH LOGIN\r\n" + b64(b"joe") + b"\r\n" + b64(PASSWORD) + b"\r\nSTAT\r\n"
        expected = b"+ VXNlcm5hbWU6\r\n+ UGFzc3dvcmQ6\r\n+OK \r\n+OK 0 0\r\n"
        self.assertEqual(server.say(said), expected)
        server = Server()
        self.assertEqual(b"".join(server.say(bytes([each])) for each in said), expected)

    def test_a_star_cancels(self) -> None:
        server = Server()
        answer = server.say(b"AUTH PLAIN\r\n*\r\n")
        self.assertEqual(answer, b"+ \r\n-ERR authentication cancelled\r\n")
        self.assertEqual(server.say(b"NOOP\r\n"), SUCCESS)

    def test_what_is_malformed_ends_the_exchange_and_not_the_session(self) -> None:
        for said in (b"AUTH PLAIN x", b"AUTH PLAIN =", b"AUTH PLAIN\r\n=", b"AUTH LOGIN\r\n "):
            server = Server()
            lines = server.say(said + b"\r\n").split(b"\r\n")
            self.assertTrue(lines[-2].startswith(b"-ERR malformed response: "), lines)
            self.assertEqual(server.say(b"NOOP\r\n"), SUCCESS)

    def test_a_wrong_password_reads_as_to_pass_and_counts(self) -> None:
        server = Server()
        for said in (b"\0joe\0x", b"\0nobody\0x", b"root\0joe\0" + PASSWORD):
            self.assertFalse(server.transport.disconnecting)
            self.assertEqual(server.say(b"AUTH PLAIN " + b64(said) + b"\r\n"), WRONG)
        self.assertTrue(server.transport.disconnecting)

    def test_lines_of_an_exchange_may_be_long_and_others_not(self) -> None:
        server = Server()
        password = b"x" * 9000
        self.assertEqual(
            server.say(b"AUTH PLAIN " + b64(b"\0joe\0" + password) + b"\r\n"),
            b"-ERR line too long\r\n",
        )
        answer = server.say(b"AUTH PLAIN\r\n" + b64(b"\0joe\0" + password) + b"\r\n")
        self.assertEqual(answer, b"+ \r\n" + WRONG)

    def test_a_longer_one_ends_the_exchange(self) -> None:
        for octets, answer in ((12_286, b"-ERR malformed response: "), (12_287, b"-ERR line too")):
            server = Server()
            self.assertTrue(
                server.say(b"AUTH PLAIN\r\n" + b"=" * octets + b"\r\n")[4:].startswith(answer)
            )
            self.assertEqual(server.say(b"NOOP\r\n"), SUCCESS)

    def test_unknown_mechanisms_are_refused(self) -> None:
        for name in (b"XYZZY", b"GSSAPI", b"CRAM-MD5", b"\xff", b"*"):
            self.assertEqual(
                Server().say(b"AUTH " + name + b"\r\n"),
                b"-ERR unknown authentication mechanism\r\n",
            )

    def test_the_log_says_by_what_means(self) -> None:
        for said, method in (
            (b"AUTH PLAIN " + b64(b"\0joe\0" + PASSWORD), "plain"),
            (b"AUTH LOGIN " + b64(b"joe") + b"\r\n" + b64(PASSWORD), "login"),
        ):
            server = Server()
            lines = server.lines_of_log()
            server.say(said + b"\r\n")
            self.assertTrue(lines[0].endswith(f" method={method} tls=no"), lines)


class ClearTextTests(SynchronousTestCase):
    """What there is only where the site keeps passwords in clear text."""

    def apop(self, server: Server, password: bytes = PASSWORD) -> bytes:
        challenge = re.search(rb"<.*>", server.greeting)
        assert challenge is not None
        digest = hashlib.md5(challenge[0] + password).hexdigest().encode()
        return server.say(b"APOP joe " + digest + b"\r\n")

    def test_without_it_nothing_shows_that_there_is_any(self) -> None:
        server = Server()
        self.assertNotIn(b"<", server.greeting)
        self.assertNotIn(b"CRAM", server.say(b"CAPA\r\nAUTH\r\n"))
        for arguments in (b"", b" joe", b" joe 0123456789abcdef0123456789abcdef"):
            self.assertEqual(
                server.say(b"APOP" + arguments + b"\r\n"), b"-ERR authorization first\r\n"
            )
        self.assertEqual(server.log_in().say(b"APOP\r\n"), b"-ERR unimplemented\r\n")

    def test_one_brings_cram_md5_and_no_apop(self) -> None:
        server = Server(cleartext=1)
        self.assertNotIn(b"<", server.greeting)
        self.assertEqual(server.say(b"APOP joe x\r\n"), b"-ERR authorization first\r\n")
        self.assertIn(b"\r\nSASL PLAIN LOGIN CRAM-MD5\r\n", server.say(b"CAPA\r\n"))
        challenge = base64.b64decode(server.say(b"AUTH CRAM-MD5\r\n").removeprefix(b"+ "))
        self.assertRegex(challenge, rb"\A<[0-9.a-f]+@mail\.example\.org>\Z")
        lines = server.lines_of_log()
        self.assertEqual(server.say(b64(b"joe " + hmac_md5(challenge)) + b"\r\n"), SUCCESS)
        self.assertIn("method=cram-md5 tls=no", lines[0])
        self.assertEqual(server.realm.mind.password, b"")

    def test_a_wrong_digest_reads_like_a_wrong_password(self) -> None:
        server = Server(cleartext=1)
        challenge = base64.b64decode(server.say(b"AUTH CRAM-MD5\r\n").removeprefix(b"+ "))
        said = b64(b"joe " + hmac_md5(challenge, b"wrong"))
        self.assertEqual(server.say(said + b"\r\n"), WRONG)
        self.assertEqual(self.apop(Server(cleartext=2), b"wrong"), WRONG)

    def test_two_brings_apop(self) -> None:
        server = Server(cleartext=2)
        lines = server.lines_of_log()
        self.assertRegex(server.greeting, rb"\A\+OK <[0-9.a-f]+@mail\.example\.org>\r\n\Z")
        self.assertEqual(self.apop(server), SUCCESS)
        self.assertIn("method=apop tls=no", lines[0])

    def test_challenges_are_never_the_same(self) -> None:
        greetings = {Server(cleartext=2).greeting for _ in range(20)}
        self.assertEqual(len(greetings), 20)

    def test_a_malformed_apop_is_a_syntax_error(self) -> None:
        for arguments in (b"", b" joe", b" joe x", b"  0123456789abcdef0123456789abcdef"):
            answer = Server(cleartext=2).say(b"APOP" + arguments + b"\r\n")
            self.assertEqual(answer, b"-ERR syntax error\r\n")
