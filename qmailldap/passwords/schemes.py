"""The schemes that are named by a digest: canonical names, and hashlib's names of the digests."""

from __future__ import annotations

__all__ = ["PBKDF2_SCHEMES", "SALTED", "UNSALTED"]

UNSALTED = {
    "MD4": "md4",
    "MD5": "md5",
    "RMD160": "ripemd160",
    "SHA": "sha1",
    "SHA256": "sha256",
    "SHA384": "sha384",
    "SHA512": "sha512",
}
SALTED = {
    "SMD5": "md5",
    "SSHA": "sha1",
    "SSHA256": "sha256",
    "SSHA384": "sha384",
    "SSHA512": "sha512",
}
PBKDF2_SCHEMES = {"PBKDF2-SHA1": "sha1", "PBKDF2-SHA256": "sha256", "PBKDF2-SHA512": "sha512"}
