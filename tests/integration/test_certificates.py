"""Certificates as clients meet them, and their renewal while the server runs."""

from __future__ import annotations

import os
import poplib
import re
import signal
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.internet.threads import deferToThread

from .certificates import write_authority, write_certificate
from .clients import LIMIT
from .hosts import NOBODY, python_as_user, require_root
from .ports import HOST, unused_port
from .processes import Finished, run, wait_until
from .server import PROJECT, Pop3Server
from .site import PASSWORD, SiteTestCase

_KEY = b"-----BEGIN PRIVATE KEY-----"
_NOBODY_ASKED = "192.0.2.1:389"
"""A directory that no test here asks."""


class CertificatesTestCase(SiteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.port = unused_port()
        self.certificates = self.directory / "certificates"
        self.certificates.mkdir()
        self.root = self.certificates / "root.pem"
        self.between = self.certificates / "between.pem"
        write_authority(self.root, "root")
        write_authority(self.between, "between", authority=self.root)

    def certificate(self, name: str, *hosts: str, days: float = 1) -> Path:
        """Write a certificate of the authority between, with that of this one, and the key."""
        path = self.certificates / name
        # As those do it that take care: no moment with half a file.
        new = self.certificates / f".{name}"
        write_certificate(new, *hosts, days=days, authority=self.between)
        certificate, key = new.read_bytes().split(_KEY)
        above, _ = self.between.read_bytes().split(_KEY)
        new.write_bytes(certificate + above + _KEY + key)
        new.chmod(0o600)
        new.rename(path)
        self.secrets.update(key.decode().splitlines()[1:3])
        return path

    def server_with(
        self,
        *options: str,
        directory: str = _NOBODY_ASKED,
        before: Sequence[str] = (),
        control: Mapping[str, str | None] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Pop3Server:
        self.server = self.new_server(
            directory,
            control=control,
            options=["--pop3s", f"tcp:{self.port}:interface={HOST}", *options],
            before=before,
            variables={"LOGLEVEL": "15", **(variables or {})},
        )
        return self.server

    async def start_with(
        self,
        certificate: Path,
        directory: str = _NOBODY_ASKED,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        options = ["--certificate", str(certificate)]
        await self.server_with(*options, directory=directory, variables=variables).start()
        await self.listening()

    async def listening(self) -> None:
        await wait_until(lambda: _is_open(self.port), LIMIT, "a port for TLS", self.server.child)

    async def openssl(self, *options: str) -> Finished:
        command = ["openssl", "s_client", "-connect", f"{HOST}:{self.port}", *options]
        return await run(command, LIMIT)

    async def shown(self, host: str = "") -> x509.Certificate:
        """What a client is shown that asks for a host, if any."""

        def ask() -> bytes:
            with _connect(self.port, host) as connection:
                return connection.getpeercert(binary_form=True) or b""

        return x509.load_der_x509_certificate(await deferToThread(ask))

    async def assert_shown(self, path: Path, host: str = "") -> None:
        shown = await self.shown(host)
        self.assertEqual(shown, x509.load_pem_x509_certificate(path.read_bytes()), host)

    async def logged(self, pattern: str, times: int = 1) -> None:
        await wait_until(
            lambda: len(re.findall(pattern, self.server.log)) >= times,
            LIMIT,
            f"{pattern!r} in the log",
            self.server.child,
        )

    def hang_up(self) -> None:
        self.server.child.signal(signal.SIGHUP)


class ChoiceTests(CertificatesTestCase):
    async def test_each_client_is_shown_the_whole_chain_of_the_host_it_means(self) -> None:
        first = self.certificate("first.pem", "pop.example.org")
        second = self.certificate("second.pem", "*.example.net", "mail.example.com")
        chain, key = self.certificates / "chain.pem", self.certificates / "key.pem"
        both = self.certificate("third.pem", "pop.example.com", days=-1).read_bytes()
        chain.write_bytes(both.split(_KEY)[0])
        key.write_bytes(_KEY + both.split(_KEY)[1])
        await self.server_with(
            *("--certificate", str(first), "--certificate", str(second)),
            *("--certificate", f"{chain}:{key}"),
            # Not read, as there are others.
            control={"cert.pem": "nothing"},
        ).start()
        await self.listening()
        for host, path in (
            ("", first),
            ("pop.example.org", first),
            ("nobody.example.com", first),
            ("POP.example.net", second),
            ("mail.example.com", second),
            ("pop.example.com", chain),
        ):
            await self.assert_shown(path, host)
        for host in ("pop.example.org", "any.example.net"):
            verified = await self.openssl(
                *("-servername", host, "-verify_hostname", host),
                *("-CAfile", str(self.root), "-verify_return_error"),
            )
            self.assertEqual(verified.code, 0, verified.text)
            self.assertIn("Verify return code: 0 (ok)", verified.text)
        await self.logged(re.escape(f"certificate {chain}:{key}: it has expired on"))

    async def test_nothing_older_than_tls_1_2_is_spoken(self) -> None:
        certificate = self.certificate("cert.pem", "pop.example.org")
        await self.start_with(certificate)
        for version in ("-tls1", "-tls1_1"):
            refused = await self.openssl(version, "-cipher", "ALL:@SECLEVEL=0")
            self.assertNotEqual(refused.code, 0, refused.text)
            self.assertRegex(refused.text, "alert protocol version|unsupported protocol")
        for version in ("-tls1_2", "-tls1_3"):
            spoken = await self.openssl(version)
            self.assertEqual(spoken.code, 0, spoken.text)


class RenewalTests(CertificatesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.certificate("cert.pem", "pop.example.org")

    async def test_one_that_only_root_may_read_is_renewed_and_sessions_go_on(self) -> None:
        require_root()
        self.user("ann")
        self.slapd = self.new_slapd()
        await self.slapd.start()
        await self.start_with(self.path, directory=self.slapd.address)
        await self.logged("rights network=")
        self.assertNotIn(0, self.server.network.uids)
        self.assertEqual((self.path.stat().st_mode & 0o777, self.path.stat().st_uid), (0o600, 0))
        session = await deferToThread(self.log_in)
        for times in (1, 2):
            self.certificate("cert.pem", "pop.example.org", f"pop{times}.example.org")
            self.hang_up()
            await self.logged(rf"certificate loaded file={self.path} names=pop\.", times)
            await self.assert_shown(self.path)
        self.assertEqual((await deferToThread(session.stat))[0], 0)
        await deferToThread(session.quit)
        self.hang_up()
        await self.logged("certificate unchanged")

    async def test_one_that_is_bad_is_told_and_the_old_one_stays(self) -> None:
        await self.start_with(self.path)
        old = await self.shown()
        for content, fault in (
            (self.path.read_bytes()[:-100], "one private key in PEM format is wanted"),
            (b"nothing", "it holds no certificate in PEM format"),
            (None, "cannot be read: No such file or directory"),
        ):
            self.path.unlink()
            if content is not None:
                self.path.write_bytes(content)
            self.hang_up()
            await self.logged(
                f"control was not loaded, what was in force stays so: {self.path}: {fault}"
            )
            self.assertEqual(await self.shown(), old)
        self.certificate("cert.pem", "pop.example.org")
        self.hang_up()
        await self.logged("certificate loaded")
        await self.assert_shown(self.path)

    async def test_a_change_is_seen_without_being_told(self) -> None:
        often = self.directory / "often"
        often.mkdir()
        (often / "sitecustomize.py").write_text(
            "from qmailldap.tls.watch import CertificateWatch\n"
            "CertificateWatch.__init__.__defaults__ = (0.1,)\n"
        )
        paths = os.pathsep.join([str(often), str(PROJECT), os.environ.get("PYTHONPATH", "")])
        await self.start_with(self.path, variables={"PYTHONPATH": paths})
        self.certificate("cert.pem", "pop.example.org")
        await self.logged("certificate loaded")
        await self.assert_shown(self.path)

    async def test_not_started_as_root_it_reads_what_it_may(self) -> None:
        require_root()
        self.path.chmod(0o644)
        server = self.server_with(
            *("--certificate", str(self.path)),
            before=python_as_user(NOBODY),
            control={"ldaplogin": None, "ldappassword": None},
        )
        await server.start()
        await self.listening()
        self.certificate("cert.pem", "pop.example.org")
        self.path.chmod(0o644)
        self.hang_up()
        await self.logged("certificate loaded")
        await self.assert_shown(self.path)

    def log_in(self) -> poplib.POP3_SSL:
        session = poplib.POP3_SSL(HOST, self.port, context=_trusting(), timeout=LIMIT)
        session.user("ann")
        session.pass_(PASSWORD)
        return session


class StartTests(CertificatesTestCase):
    async def assert_refused(self, fault: str, *paths: Path) -> None:
        option = ":".join(map(str, paths))
        finished = await self.server_with("--certificate", option).refuse_to_start()
        self.assertGreater(finished.code, 0, finished.text)
        self.assertNotIn("Traceback", finished.text)
        self.assertIn(f"{option}: {fault}", finished.text.rstrip("\n").splitlines()[-1])
        for secret in self.secrets:
            self.assertNotIn(secret, finished.text)

    async def test_nobody_is_asked_for_the_passphrase_of_a_key(self) -> None:
        path = self.certificate("cert.pem", "pop.example.org")
        key = load_pem_private_key(path.read_bytes(), None)
        encrypted = key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a passphrase")
        )
        path.write_bytes(path.read_bytes().split(_KEY)[0] + encrypted)
        await self.assert_refused("the key is encrypted", path)

    async def test_the_key_of_another_certificate_is_not_taken(self) -> None:
        path = self.certificate("cert.pem", "pop.example.org")
        other = self.certificate("other.pem", "pop.example.org")
        await self.assert_refused("the key is not that of the first certificate", path, other)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _connect(port: int, host: str) -> ssl.SSLSocket:
    bare = socket.create_connection((HOST, port), LIMIT)
    try:
        return _trusting().wrap_socket(bare, server_hostname=host or None)
    except BaseException:
        bare.close()
        raise
