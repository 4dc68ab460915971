"""What takes root: to be another user, and a host whose passwd knows users of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..root import no_root
from .users import Owner

__all__ = ["NOBODY", "Host", "as_user", "python_as_user", "require_root"]

NOBODY: Owner = (65534, 65534)

_MOUNTED = (
    'for file in "$1"/*; do mount --bind "$file" "/etc/${file##*/}" || exit 1; done'
    ' && shift && exec "$@"'
)


def require_root() -> None:
    """Skip a test that cannot be run, where somebody has said that this is known; else fail it."""
    if os.geteuid() != 0 or not shutil.which("setpriv") or not shutil.which("unshare"):
        no_root("is about the rights of several users, by setpriv and unshare of util-linux")


def as_user(owner: Owner) -> list[str]:
    """What is put before a command to run it as ``owner``, with no rights beside."""
    uid, gid = owner
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--inh-caps=-all"]


def python_as_user(owner: Owner) -> list[str]:
    """As `as_user`, for this interpreter.

    Where it is in a folder that only root may enter, as root's own home, the process may read
    every file, yet is nobody else than ``owner``.
    """
    before = as_user(owner)
    # One that cannot read its own library may take another version's.
    probe = f"import sys; sys.exit(sys.base_prefix != {sys.base_prefix!r})"
    if subprocess.run([*before, sys.executable, "-c", probe], capture_output=True).returncode:
        before[-1:] = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return before


class Host:
    """passwd, shadow and group in ``directory``, with root and nobody in them, for one program.

    The names of hosts are those of the system, unless `host` gives others.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        for name, mode in (("passwd", 0o644), ("shadow", 0o600), ("group", 0o644)):
            (directory / name).touch(mode)
        self.user("root", (0, 0), "/root")
        self.user("nobody", NOBODY, "/nonexistent")

    def user(self, name: str, owner: Owner, home: Path | str, value: str = "*") -> None:
        """Add a user, and a group of the same name; ``value`` is what shadow holds."""
        uid, gid = owner
        self._append("passwd", f"{name}:x:{uid}:{gid}::{home}:/bin/sh\n")
        self._append("shadow", f"{name}:{value}:19000:0:99999:7:::\n")
        self._append("group", f"{name}:x:{gid}:\n")

    def host(self, name: str, *addresses: str) -> None:
        """Give a name addresses; no other but localhost has any then, but for those of the DNS."""
        if not (self._directory / "hosts").exists():
            self._append("hosts", "127.0.0.1 localhost\n")
        for address in addresses:
            self._append("hosts", f"{address} {name}\n")

    @property
    def before(self) -> list[str]:
        """What is put before a command to run it on this host."""
        return ["unshare", "--mount", "sh", "-c", _MOUNTED, "sh", str(self._directory)]

    def _append(self, name: str, line: str) -> None:
        with (self._directory / name).open("a") as file:
            file.write(line)
