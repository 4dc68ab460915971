"""Members that are this server and speak TLS to each other, verified or not at all."""

from __future__ import annotations

import re

from .certificates import write_authority, write_certificate
from .cluster import CLIENT, UNREACHABLE, ClusterTestCase, mail_host
from .mailboxes import MESSAGES, brief
from .site import PASSWORD

FRONT, PLAIN_FRONT, RIGHT, WRONG, WITHOUT = 1, 2, 3, 4, 5


class VerifiedMembersTests(ClusterTestCase):
    async def test_passwords_go_by_tls_to_members_that_prove_their_names_and_to_no_others(
        self,
    ) -> None:
        authority = self.directory / "authority.pem"
        write_authority(authority, "The cluster's own")
        public = authority.read_text().partition("-----BEGIN PRIVATE")[0]
        certificates = {}
        for number, name in ((RIGHT, mail_host(RIGHT)), (WRONG, "other.example.org")):
            file = self.directory / f"{name}.pem"
            write_certificate(file, name, authority=authority)
            certificates[number] = {"cert.pem": file.read_text()}
        numbers = (RIGHT, WRONG, WITHOUT)
        for number in numbers:
            messages = [MESSAGES["plain"], MESSAGES["dots"]]
            self.user(f"user{number}", messages=messages, mailHost=mail_host(number))
        routes = {mail_host(number): self.address(number) for number in numbers}
        self.slapd = self.new_slapd()
        verified = {"pop3clustertls": "2", "pop3clusterca": public}
        self.new_member(FRONT, routes, verified)
        self.new_member(PLAIN_FRONT, routes)
        for number in numbers:
            trusting = {"pop3trusted": "127.0.0.0/8", **certificates.get(number, {})}
            self.new_member(number, routes, trusting)
        await self.start_members()

        session = self.session(f"user{RIGHT}")
        direct = await self.session_at(RIGHT, session)
        self.assertEqual(direct.count(b"\r\n+OK"), 6, direct)
        for front, tls in ((FRONT, "TLSv1.3"), (PLAIN_FRONT, "no")):
            answers = await self.session_at(front, session, source=CLIENT)
            self.assertEqual(brief(answers), brief(direct))
            begun = await self.in_log(front, rf" login user=user{RIGHT} .*session=(\S+) ")
            line = rf" login user=user{RIGHT} peer={CLIENT} session={begun[1]} .*tls={tls}\n"
            await self.in_log(RIGHT, line)

        for number, said in ((WRONG, "its certificate is for"), (WITHOUT, "speaks no TLS")):
            user = f"user{number}"
            self.assertEqual(await self.refusal_at(FRONT, user), UNREACHABLE)
            await self.in_log(
                FRONT, rf"refused user={user} .*=mailhost-unreachable detail=.*{said}"
            )
            # It has not even heard who it was.
            self.assertNotIn(user, self.members[number].log)
            self.assertEqual(await self.refusal_at(PLAIN_FRONT, user), "accepted")
            self.assertEqual(len(re.findall(f" login user={user} ", self.members[number].log)), 1)

    def session(self, user: str) -> bytes:
        commands = (f"USER {user}", f"PASS {PASSWORD}", "STAT", "UIDL", "RETR 2", "TOP 1 1", "QUIT")
        return "".join(f"{command}\r\n" for command in commands).encode()
