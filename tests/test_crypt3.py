"""Settings for new hashes; hashing itself is held against other tools in test_passwords."""

from __future__ import annotations

import ctypes
import errno

from twisted.trial.unittest import SynchronousTestCase

from qmailldap import crypt3


class PreferredSettingTests(SynchronousTestCase):
    def assert_usable(self) -> None:
        first, second = crypt3.preferred_setting(), crypt3.preferred_setting()
        self.assertNotEqual(first, second)
        hashed = crypt3.crypt(b"secret", first)
        assert hashed is not None
        self.assertTrue(hashed.startswith(first))
        self.assertEqual(crypt3.crypt(b"secret", hashed), hashed)
        self.assertNotEqual(crypt3.crypt(b"Secret", hashed), hashed)

    def test_the_host_can_hash_by_it_and_no_two_are_the_same(self) -> None:
        self.assert_usable()

    def test_a_library_that_prefers_none_hashes_by_sha512(self) -> None:
        class Glibc:
            crypt_r = crypt3._library.crypt_r

        self.patch(crypt3, "_library", Glibc)
        self.assert_usable()
        self.assertRegex(crypt3.preferred_setting(), rb"\A\$6\$[./0-9A-Za-z]{16}\Z")

    def test_a_library_that_fails_is_told_of(self) -> None:
        for answer in (None, b"*0"):
            self.patch(crypt3, "_library", FailingLibrary(answer))
            error = self.assertRaises(OSError, crypt3.preferred_setting)
            self.assertEqual(error.errno, errno.EINVAL)
            self.assertIn("crypt_gensalt(3): Invalid argument", str(error))


class FailingLibrary:
    """A libcrypt that prefers no method."""

    def __init__(self, answer: bytes | None) -> None:
        def crypt_gensalt_rn(*args: object) -> bytes | None:
            ctypes.set_errno(errno.EINVAL)
            return answer

        self.crypt_gensalt_rn = crypt_gensalt_rn
