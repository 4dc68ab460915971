"""The dearest values that are still verified.

A record can be hostile, or a slip of the keyboard; a value beyond these is malformed. At a limit
one verification takes some seconds of a processor, in one thread of the pool.
"""

MOST_ROUNDS = 2_500_000
"""Of PBKDF2, and of the crypt(3) formats that count rounds; advice of 2025 is at most 1,300,000."""

MOST_BCRYPT_LOG_ROUNDS = 16
"""The binary logarithm that bcrypt's cost is; one more doubles the time."""

MOST_MEMORY = 256 * 1024 * 1024
"""Octets that Argon2, scrypt or yescrypt may ask for, in every thread: libsodium's "moderate"."""

MOST_MEMORY_WORK = 16 * MOST_MEMORY
"""Octets filled, counting every pass over them."""

MOST_LANES = 16
"""Of Argon2: the library starts as many threads."""
