"""Members that are not this server: the original programs, and those that ask who the client is."""

from __future__ import annotations

from .cluster import CLIENT, UNREACHABLE, ScriptedTestCase
from .mailboxes import BIG_MESSAGE, MESSAGES, as_lines, stuffed
from .members import Caller
from .scripts import TRUSTING, UNTIL_JOINED, original, script
from .site import PASSWORD


class OriginalTests(ScriptedTestCase):
    async def test_it_is_asked_what_it_knows_and_one_thing_at_a_time(self) -> None:
        contents = [MESSAGES["plain"], MESSAGES["dots"], BIG_MESSAGE]
        self.keep("same", original("user0", PASSWORD, contents))
        self.keep("other password", original("user1", "another-one", contents))
        # Where TLS is wished for it is asked for, too; where it is required, this is the end.
        await self.start_fronts({}, {"pop3clustertls": "1"}, {"pop3clustertls": "2"})
        commands = b"STAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nRETR 2\r\nRETR 3\r\nDELE 1\r\nQUIT\r\n"
        sizes = [len(content) for content in contents]
        expected = [b"+OK "] * 2 + [b"+OK 3 %d" % sum(sizes)]
        expected += [b"+OK ", *(b"%d %d" % each for each in enumerate(sizes, 1)), b"."]
        expected += [b"+OK ", *(b"%d 1700000000.%d.mx1" % (n, n) for n in (1, 2, 3)), b"."]
        for content in contents:
            expected += [b"+OK ", *stuffed(content), b"", b"."]
        expected += [b"+OK ", b"+OK "]
        for front, first in ((1, []), (2, [b"STLS\r\n"])):
            answers = await self.session_at(front, self.login("same") + commands)
            self.assertEqual(as_lines(answers), expected)
            (caller,) = self.scripted["same"].callers
            login = [b"USER user0\r\n", f"PASS {PASSWORD}\r\n".encode()]
            self.assertEqual(caller.packets[: len(first) + 2], [*first, *login])
            self.assertEqual(caller.received, b"".join([*first, *login]) + commands)
            self.assertEqual(
                await self.answer("other password", front), "-ERR authorization failed"
            )
            await self.in_log(front, "refused user=user1 .*reason=member-refused ")
            self.scripted["same"].callers.clear()
        self.assertEqual(await self.answer("same", 3), UNREACHABLE)
        self.assertEqual(self.scripted["same"].callers[0].received, b"STLS\r\n")
        await self.in_log(3, "refused user=user0 .*reason=mailhost-unreachable detail=.*authoriz")
        await self.assert_all_ended()


class IntroductionTests(ScriptedTestCase):
    """Members are told whom a session is for, and who may say so here."""

    async def test_the_client_is_introduced_where_the_greeting_asks_for_it(self) -> None:
        trusting = (TRUSTING, *(Caller.hear, b"+OK \r\n") * 3, Caller.close)
        self.keep("trusting", script(*trusting))
        self.keep("other", script(*UNTIL_JOINED, Caller.close))
        await self.start_fronts({"pop3trusted": f"{CLIENT}\n192.0.2.0/24"})
        login, other = self.login("trusting"), self.login("other")
        user, password, _ = login.split(b"\r\n")

        # A client that nobody has to believe.
        said = b"XCLIENT ADDR=192.0.2.1 TTL=2\r\n"
        answers = await self.session_at(1, said + login)
        self.assertEqual(answers, b"-ERR authorization first\r\n" + b"+OK \r\n" * 2)
        xclient, *rest = self.received("trusting")
        self.assertRegex(xclient, rb"^XCLIENT ADDR=127\.0\.0\.1 PORT=\d+ SESSION=[\w-]{12} TTL=4$")
        self.assertEqual(rest, [user, password])
        session = xclient.split(b"SESSION=")[1].split()[0].decode()
        await self.in_log(1, f"login user=user0 peer=127.0.0.1 session={session} mailhost=")
        await self.session_at(1, said + other)
        self.assertEqual(self.received("other"), [*other.split(b"\r\n")[:2]])

        # Another front, which is believed: what it says is handed on, and counted.
        for said, expected in (
            (
                b"XCLIENT ADDR=192.0.2.1 PORT=4567 SESSION=ab+/c=1 TTL=3 NEW=1",
                b"XCLIENT ADDR=192.0.2.1 PORT=4567 SESSION=ab+/c=1 TTL=2",
            ),
            (
                b"xclient ttl=2 addr=2001:DB8::1 session=v6 port=1",
                b"XCLIENT ADDR=2001:db8::1 PORT=1 SESSION=v6 TTL=1",
            ),
            # Neither believed nor counted: nothing is handed on.
            (b"XCLIENT ADDR=192.0.2.1 SESSION=last TTL=1", b""),
            (b"XCLIENT ADDR=192.0.2.1 SESSION=uncounted", b""),
        ):
            answers = await self.session_at(1, said + b"\r\n" + login + b"QUIT\r\n", source=CLIENT)
            if expected:
                self.assertEqual(answers, b"+OK \r\n" * 3)
                self.assertEqual(self.received("trusting"), [expected, user, password])
            else:
                self.assertEqual(answers, b"+OK \r\n" * 2 + UNREACHABLE.encode() + b"\r\n+OK \r\n")
                self.assertEqual(self.scripted["trusting"].callers, [])
        for pattern in (
            r" login user=user0 peer=192\.0\.2\.1 session=ab\+/c=1 mailhost=",
            r" login user=user0 peer=2001:db8::1 session=v6 mailhost=",
            r" refused user=user0 peer=192\.0\.2\.1 session=last reason=mailhost-unreachable",
            r" refused user=user0 peer=192\.0\.2\.1 session=uncounted reason=mailhost-unreachable",
        ):
            await self.in_log(1, pattern)

        # What makes no sense changes nothing.
        nonsense = [
            b"ADDR=mail",
            b"ADDR=",
            b"PORT=x ADDR=192.0.2.9",
            b"TTL=-1",
            b"TTL=1 PORT=65536",
        ]
        said = b"".join(b"XCLIENT %b\r\n" % each for each in nonsense)
        answers = await self.session_at(1, said + login, source=CLIENT)
        self.assertEqual(answers, b"-ERR syntax error\r\n" * len(nonsense) + b"+OK \r\n" * 2)
        (xclient, *_) = self.received("trusting")
        self.assertRegex(xclient, rb"^XCLIENT ADDR=127\.0\.0\.77 PORT=\d+ SESSION=\S+ TTL=4$")
        await self.assert_all_ended()

    def received(self, name: str) -> list[bytes]:
        """The lines that came on the only connection since this was last asked."""
        (caller,) = self.scripted[name].callers
        self.scripted[name].callers.clear()
        return caller.received.splitlines()
