"""crypt(3) of the host, by ctypes.

Not by an extension module: those hold the interpreter lock for as long as the hash takes, which
stops the reactor, while ctypes lets go of it (design.md, "Choices"). Nor by the standard library,
which has lost its crypt in Python 3.13. Only the standard library may enter here: the process that
reads shadow has nothing else.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading

__all__ = ["crypt", "preferred_setting"]

_LIBRARIES = ("libcrypt.so.2", "libcrypt.so.1")
"""libxcrypt under its two names; the second is also glibc's own."""

_CRYPT_DATA_SIZE = 131232
"""Octets of glibc's ``struct crypt_data``; libxcrypt's has 32768."""

_SETTING_SIZE = 192
"""Octets of the longest setting: libxcrypt's CRYPT_GENSALT_OUTPUT_SIZE."""

_ALPHABET = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _load(names: tuple[str, ...] = _LIBRARIES) -> ctypes.CDLL:
    for name in names:
        try:
            library = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        library.crypt_r.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
        library.crypt_r.restype = ctypes.c_char_p
        return library
    raise ImportError(f"no crypt(3) on this host: neither of {', '.join(names)} can be loaded")


_library = _load()
_thread = threading.local()


def crypt(password: bytes, setting: bytes) -> bytes | None:
    """The password hashed as ``setting`` says: its format, cost and salt; see crypt(5).

    None where the library refuses: a setting it does not know, a password that is too long for it
    or that holds a NUL, which a C string cannot. Raises `MemoryError` where the format's memory is
    not to be had. Any number of threads may be in it.
    """
    if b"\0" in password or b"\0" in setting:
        return None
    data = getattr(_thread, "data", None)
    if data is None:
        data = _thread.data = ctypes.create_string_buffer(_CRYPT_DATA_SIZE)
    try:
        ctypes.set_errno(0)
        hashed: bytes | None = _library.crypt_r(password, setting, data)
        failure = ctypes.get_errno()
    finally:
        # The scratch space holds what was made of the password; and glibc wants it zeroed.
        ctypes.memset(data, 0, _CRYPT_DATA_SIZE)
    # "*0", or "*1" where the setting is "*0", is how the library says no.
    if hashed is None or hashed.startswith(b"*"):
        if failure == errno.ENOMEM:
            raise MemoryError("crypt(3) got no memory")
        return None
    return hashed


def preferred_setting() -> bytes:
    """A setting with a fresh salt, of the method and the cost that the host gives new passwords.

    By crypt_gensalt(3), which chooses both; ``$6$`` where the library has no such function, as
    glibc's own has not. Raises ``OSError`` where it has one and that makes none.
    """
    try:
        gensalt = _library.crypt_gensalt_rn
    except AttributeError:
        return b"$6$" + bytes(_ALPHABET[octet & 63] for octet in os.urandom(16))
    gensalt.argtypes = [
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
    ]
    gensalt.restype = ctypes.c_char_p
    ctypes.set_errno(0)
    setting = ctypes.create_string_buffer(_SETTING_SIZE)
    made: bytes | None = gensalt(None, 0, None, 0, setting, _SETTING_SIZE)
    if made is None or made.startswith(b"*"):
        failure = ctypes.get_errno()
        raise OSError(failure, f"crypt_gensalt(3): {os.strerror(failure)}")
    return made
