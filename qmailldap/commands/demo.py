"""`qmailldap demo`: the whole server on one's own machine, with a directory of two users inside.

The directory is an LDIF file served by ldaptor, over a real connection, so that a login goes the
way it goes at a site. Nothing of the demo is used by the server itself.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import socket
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from qmailldap.account import LOWEST_ID
from qmailldap.commands.demo_certificate import own_certificate
from qmailldap.commands.demo_messages import MAIL
from qmailldap.directory.embedded import EmbeddedDirectory
from qmailldap.privsep.rights import Identity, UnknownIdentity, find_identity
from qmailldap.service import Options, makeService

__all__ = ["add_to", "prepare"]

_INTERFACE = "127.0.0.1"
_OWNER = "nobody"
"""Whose the mail is when root runs the demo, and as whom it then runs."""

_PASSWORDS = {"alice": "wonderland", "bob": "builder"}


def add_to(commands: Any) -> None:
    """Make the command known to an argparse parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="run a server with an embedded directory of two users",
        description="Run the POP3 server with an embedded directory of two users and some mail.",
    )
    parser.add_argument(
        "--directory",
        metavar="DIR",
        type=Path,
        default=Path("qmailldap-demo"),
        help="where control files, LDIF and mailboxes are kept (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=8110, help="POP3 port on 127.0.0.1 (default: %(default)s)"
    )
    parser.set_defaults(run=_run)


def prepare(directory: Path, owner: Identity | None = None) -> None:
    """Make what is missing of the demo's files; what is there stays as it is.

    For root, who can give it away, the mail belongs to ``owner``.
    """
    control = directory / "control"
    control.mkdir(parents=True, exist_ok=True)
    facts = {
        "me": "localhost",
        "ldapbasedn": "dc=example,dc=org",
        "ldapobjectclass": "qmailUser",
    }
    for name, fact in facts.items():
        _write_once(control / name, fact.encode() + b"\n")
    if not (control / "cert.pem").exists():
        _write_secret(control / "cert.pem", own_certificate())
    # Not once: the directory may have been moved, or be somebody else's.
    # As root, by a way that needs no rights: others may not enter the folders above.
    store = directory / "mail" if owner is None else Path("/proc/self/cwd/mail")
    (control / "ldapmessagestore").write_text(f"{store}\n")
    uid, gid = (os.getuid(), os.getgid()) if owner is None else (owner.uid, owner.gid)
    (control / "ldapuid").write_text(f"{max(uid, LOWEST_ID)}\n")
    (control / "ldapgid").write_text(f"{max(gid, LOWEST_ID)}\n")
    ldif = resources.files(__package__).joinpath("demo.ldif").read_bytes()
    _write_once(directory / "directory.ldif", ldif)
    for user, messages in MAIL.items():
        maildir = directory / "mail" / user / "Maildir"
        if not maildir.exists():
            # Under another name until it is whole: a start may be interrupted.
            unfinished = maildir.with_name("Maildir.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            for name in ("tmp", "new", "cur"):
                (unfinished / name).mkdir(parents=True, mode=0o700)
            for number, message in enumerate(messages):
                _deliver(unfinished, number, message)
            unfinished.rename(maildir)
    if owner is not None:
        for folder, _, files in os.walk(directory / "mail"):
            for path in (folder, *(os.path.join(folder, file) for file in files)):
                os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


def _write_once(path: Path, content: bytes) -> None:
    if not path.exists():
        path.write_bytes(content)


def _write_secret(path: Path, content: bytes) -> None:
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    with open(unfinished, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
    unfinished.rename(path)


def _deliver(maildir: Path, number: int, message: bytes) -> None:
    name = f"{int(time.time())}.P{os.getpid()}Q{number}.localhost,S={len(message)}"
    (maildir / "tmp" / name).write_bytes(message)
    (maildir / "tmp" / name).rename(maildir / "new" / name)


def _run(options: argparse.Namespace) -> None:
    directory = options.directory.absolute()
    try:
        # Before anything is written: another demo may be running there.
        with socket.create_server((_INTERFACE, options.port)):
            pass
        owner = find_identity(_OWNER) if os.geteuid() == 0 else None
        prepare(directory, owner)
        os.chdir(directory)
    except (OSError, UnknownIdentity) as error:
        raise SystemExit(f"qmailldap demo, {_INTERFACE}:{options.port}: {error}") from None
    globalLogBeginner.beginLoggingTo(
        [textFileLogObserver(sys.stdout)], redirectStandardIO=False, discardBuffer=True
    )
    react(lambda reactor: Deferred.fromCoroutine(_serve(reactor, directory, options.port)))


async def _serve(reactor: Any, directory: Path, port: int) -> None:
    embedded = EmbeddedDirectory()
    ldap_port = await embedded.start(reactor, directory / "directory.ldif", _INTERFACE)
    (directory / "control" / "ldapserver").write_text(f"{_INTERFACE}:{ldap_port}\n")
    settings = Options()
    settings["control"] = str(directory / "control")
    settings["listen"] = [f"tcp:{port}:interface={_INTERFACE}"]
    settings["user"] = _OWNER if os.geteuid() == 0 else None
    service = makeService(settings, reactor)
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.addSystemEventTrigger("after", "shutdown", embedded.stop)
    print(_instructions(directory, port), flush=True)
    await Deferred()


def _instructions(directory: Path, port: int) -> str:
    users = "\n".join(
        f"  {user}, password {password}: the mail lies in {directory}/mail/{user}/Maildir"
        for user, password in _PASSWORDS.items()
    )
    certificate = shlex.quote(str(directory / "control" / "cert.pem"))
    return f"""
POP3 is served on {_INTERFACE} port {port}, with TLS for those who ask for it. Users:
{users}

Try, in another terminal:
  curl pop3://alice:wonderland@{_INTERFACE}:{port}/
  curl pop3://alice:wonderland@{_INTERFACE}:{port}/2
  curl --ssl-reqd --cacert {certificate} pop3://alice:wonderland@{_INTERFACE}:{port}/1
  telnet {_INTERFACE} {port}
    USER bob
    PASS builder
    UIDL
    RETR 2
    QUIT

The control files are in {directory}/control, the users in {directory}/directory.ldif.
Ctrl-C ends it; the mailboxes stay.
"""
