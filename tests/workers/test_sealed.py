"""Memory that is handed to another process and changed by nobody."""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.workers.sealed import Unsealed, read_sealed, seal


class SealedTests(SynchronousTestCase):
    def sealed(self, octets: bytes) -> int:
        descriptor = seal(octets)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def test_whoever_has_it_reads_all_of_it_however_often(self) -> None:
        descriptor = self.sealed(b"control" * 1000)
        for _ in range(2):
            self.assertEqual(read_sealed(descriptor, 7000), b"control" * 1000)

    def test_nobody_changes_it(self) -> None:
        descriptor = self.sealed(b"control")
        self.assertRaises(OSError, os.pwrite, descriptor, b"c", 0)
        self.assertRaises(OSError, os.ftruncate, descriptor, 1)

    def test_what_is_too_large_or_no_such_memory_is_not_read(self) -> None:
        self.assertRaises(Unsealed, read_sealed, self.sealed(b"control"), 6)
        with tempfile.TemporaryFile() as file:
            self.assertRaises(OSError, read_sealed, file.fileno(), 10)
        unsealed = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
        self.addCleanup(os.close, unsealed)
        self.assertRaises(Unsealed, read_sealed, unsealed, 10)
