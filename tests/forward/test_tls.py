"""TLS to other members: what the control files make of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from OpenSSL import SSL
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.control import Control, ControlError, ServerAddress
from qmailldap.forward import ClusterTLS
from qmailldap.tls.verification import CertificateRefused, NameNotVerifiable


def cluster_tls(level: int, ca: Path | None = None) -> ClusterTLS:
    return ClusterTLS(
        Control(
            ldapserver=(ServerAddress("localhost"),),
            pop3clustertls=level,
            pop3clusterca=ca,
            directory="" if ca is None else str(ca.parent),
        )
    )


class ClusterTLSTests(SynchronousTestCase):
    def verify_mode(self, tls: ClusterTLS) -> int:
        """Whether a connection that shakes nobody's hand would verify a certificate."""
        protocol: Any = SimpleNamespace(failVerification=None)
        connection = tls.context("mail2.example.org").clientConnectionForTLS(protocol)
        return connection.get_verify_mode()

    def test_what_each_level_means(self) -> None:
        levels = [cluster_tls(level) for level in range(3)]
        self.assertEqual(
            [(tls.wanted, tls.required) for tls in levels],
            [(False, False), (True, False), (True, True)],
        )
        self.assertEqual(self.verify_mode(levels[1]), SSL.VERIFY_NONE)
        self.assertEqual(self.verify_mode(levels[2]), SSL.VERIFY_PEER)

    def test_a_file_without_a_usable_certificate_is_named(self) -> None:
        file = Path(self.mktemp())
        for said in ("cannot be read", "holds no certificate"):
            with self.assertRaises(ControlError) as caught:
                cluster_tls(2, file)
            self.assertEqual(caught.exception.file, str(file.parent / "pop3clusterca"))
            self.assertIn(said, caught.exception.problem)
            file.touch()

    def test_the_file_is_read_only_where_certificates_are_verified(self) -> None:
        missing = Path(self.mktemp())
        for level in (0, 1):
            self.assertFalse(cluster_tls(level, missing).required)

    def test_a_name_that_no_certificate_can_bear_is_told_where_that_matters(self) -> None:
        self.assertRaises(NameNotVerifiable, cluster_tls(2).context, "a..b")
        cluster_tls(1).context("a..b")

    def test_the_end_of_a_connection_is_told_as_what_it_is(self) -> None:
        refused = Failure(CertificateRefused("its certificate has expired"))
        self.assertEqual(cluster_tls(2).problem(refused), "its certificate has expired")
