"""The table of control files, and how all of them together become a `Control`.

A new fact of a site is a row of `FILES` and a field of `Control`, and a row in
docs/control-files.md. Whoever reads, shows or documents control files does it from this table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from qmailldap.account import HIGHEST_ID, LOWEST_ID
from qmailldap.control import values
from qmailldap.control.facts import Control, ControlError
from qmailldap.control.folder import Fault, Folder, Source
from qmailldap.quota import Quota

__all__ = ["FILES", "ControlFile", "Reading", "read_control", "read_files"]

_LARGEST_QUOTA = 2**63 - 1

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class ControlFile:
    """A control file: a row of the manual, and how it is read.

    ``kind``, ``default`` and ``meaning`` are in the words of the manual. ``read`` gives the value,
    None for a file that is not there, or as good as not there, or whose faults the folder was told;
    what stands in the field ``field`` of `Control` is then its default. The value of a ``secret``
    file is shown to nobody. The file is only read where ``unless`` is not set, a file above it in
    the table.
    """

    name: str
    kind: str
    default: str
    meaning: str
    read: Callable[[Folder], Any]
    field: str
    secret: bool = False
    unless: str | None = None


@attrs.frozen
class Reading:
    """What was found in the directory: the values of the files that are set, and the faults.

    ``held`` is as in `Control`.
    """

    directory: str
    values: Mapping[str, Any] = attrs.field(repr=False)
    faults: tuple[Fault, ...]
    held: Mapping[str, bytes] = attrs.field(factory=dict, repr=False)

    def control(self) -> Control:
        """The facts of the site, with the default for each file that has an error."""
        fields = {file.field: self.values[file.name] for file in FILES if file.name in self.values}
        quota = Quota(fields.pop("defaultquotasize", 0), fields.pop("defaultquotacount", 0))
        warnings = [fault for fault in self.faults if not fault.is_error]
        return Control(
            **{"ldapserver": (), **fields},
            defaultquota=quota,
            warnings=tuple(
                f"{os.path.join(self.directory, fault.name)}: {fault.problem}" for fault in warnings
            ),
            directory=self.directory,
            held=self.held,
        )


def read_control(where: str | os.PathLike[str] | Source) -> Control:
    """Read every control file of a directory, or of a `ControlSnapshot` of one.

    Raises `ControlError` for a required file that is missing, a file that cannot be read, a value
    out of its range: the first of them.
    """
    reading = read_files(where)
    for fault in reading.faults:
        if fault.is_error:
            raise ControlError(os.path.join(reading.directory, fault.name), fault.problem)
    return reading.control()


def read_files(where: str | os.PathLike[str] | Source) -> Reading:
    """Read every control file, as `read_control`, whatever is wrong with the others.

    Raises `ControlError` for a directory that is none.
    """
    folder = Folder(where)
    found: dict[str, Any] = {}
    for file in FILES:
        if file.unless in found:
            continue
        try:
            value = file.read(folder)
        except ControlError as error:
            folder.faults.append(Fault(file.name, error.problem, is_error=True))
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
            folder.faults.append(Fault(file.name, problem, is_error=True))
        else:
            if value is not None:
                found[file.name] = value
    _compare(found, folder.faults)
    return Reading(folder.directory, found, tuple(folder.faults), folder.held)


def _compare(found: Mapping[str, Any], faults: list[Fault]) -> None:
    """What one file means for another. Of one that has an error nobody knows what it was to say."""
    wrong = {fault.name for fault in faults if fault.is_error}

    def known(*names: str) -> bool:
        return wrong.isdisjoint(names)

    clustered = found.get("ldapcluster", False)
    if clustered and "me" not in found and known("me"):
        problem = "is missing or empty, and ldapcluster is 1, which requires it"
        faults.append(Fault("me", problem, is_error=True))
    bind = "ldaplogin", "ldappassword"
    if ("ldaplogin" in found) != ("ldappassword" in found) and known(*bind):
        given, missing = bind if "ldaplogin" in found else bind[::-1]
        problem = f"is missing or empty: without it, {given} makes an anonymous bind"
        faults.append(Fault(missing, problem))
    if found.get("ldapcleartext") and found.get("ldaprebind") and known("ldaprebind"):
        problem = "is of no use: with ldaprebind 1, passwords are not read from the directory"
        faults.append(Fault("ldapcleartext", problem, is_error=True))
    servers = found.get("ldapserver", ())
    by_tls = found.get("ldaptls", False) or any(server.tls for server in servers)
    if "ldapcacert" in found and not by_tls and known("ldaptls", "ldapserver"):
        problem = "is not used: ldaptls is not 1, and no line of ldapserver is ldaps://"
        faults.append(Fault("ldapcacert", problem))
    if "pop3clusterca" in found and found.get("pop3clustertls", 0) < 2 and known("pop3clustertls"):
        problem = "is not used: only pop3clustertls 2 verifies certificates"
        faults.append(Fault("pop3clusterca", problem))
    if "pop3routes" in found and not clustered and known("ldapcluster"):
        faults.append(Fault("pop3routes", "is not used: ldapcluster is not 1"))


def _line(
    name: str,
    default: str,
    meaning: str,
    parse: Callable[[str, values.Warn], Any] = lambda line, warn: line,
    *,
    field: str = "",
    unless: str | None = None,
) -> ControlFile:
    def read(folder: Folder) -> Any:
        line = folder.line(name)
        return None if line is None else _parsed(folder, name, line, parse)

    return ControlFile(
        name=name,
        kind="line",
        default=default,
        meaning=meaning,
        read=read,
        field=field or name,
        unless=unless,
    )


def _secret(name: str, default: str, meaning: str) -> ControlFile:
    return ControlFile(
        name=name,
        kind="line",
        default=default,
        meaning=meaning,
        read=lambda folder: folder.secret(name),
        field=name,
        secret=True,
    )


def _list(
    name: str,
    default: str,
    meaning: str,
    parse: Callable[[values.Lines, values.Warn], Any] = lambda lines, warn: lines,
) -> ControlFile:
    def read(folder: Folder) -> Any:
        return _parsed(folder, name, folder.list(name), parse) or None

    return ControlFile(
        name=name, kind="list", default=default, meaning=meaning, read=read, field=name
    )


def _number(
    name: str, least: int, most: int, default: str, meaning: str, *, unset: int | None = None
) -> ControlFile:
    between = "or" if most == least + 1 else "to"
    return ControlFile(
        name=name,
        kind=f"number, {least} {between} {most}",
        default=default,
        meaning=meaning,
        read=lambda folder: folder.number(name, least, most, unset),
        field=name,
    )


def _flag(name: str, default: str, meaning: str) -> ControlFile:
    number = _number(name, 0, 1, default, meaning)

    def read(folder: Folder) -> bool | None:
        value = number.read(folder)
        return None if value is None else bool(value)

    return attrs.evolve(number, read=read)


def _id(name: str, meaning: str) -> ControlFile:
    """The original takes 0 for "not set", too."""
    return _number(name, LOWEST_ID, HIGHEST_ID, "none", meaning, unset=0)


def _file(
    name: str, default: str, meaning: str, *, field: str = "", readable: bool = True
) -> ControlFile:
    return ControlFile(
        name=name,
        kind="file",
        default=default,
        meaning=meaning,
        read=lambda folder: folder.existing(name, readable=readable),
        field=field or name,
    )


def _parsed(folder: Folder, name: str, text: T, parse: Callable[[T, values.Warn], Any]) -> Any:
    try:
        return parse(text, lambda problem: folder.warn(name, problem))
    except ValueError as error:
        folder.faults += [Fault(name, str(problem), is_error=True) for problem in error.args]
        return None


FILES = (
    _line("me", "the host's own name", "this host's name: greeted with, compared with mailHost"),
    _list(
        "ldapserver",
        "required",
        "the directory servers, in the order they are tried",
        values.servers,
    ),
    _line("ldapbasedn", "empty", "where the search starts"),
    _line("ldapobjectclass", "none", "the object class, or more terms, of a user"),
    _line("ldaplogin", "anonymous", "as whom the server binds"),
    _secret("ldappassword", "anonymous", "the password of ldaplogin"),
    _number("ldaptimeout", 1, 3600, "30", "seconds a directory operation may take"),
    _flag("ldaptls", "0", "1: nothing is said to a directory server but by TLS (StartTLS)"),
    _file("ldapcacert", "the system's", "certificates trusted in directory servers"),
    _flag("ldaprebind", "0", "1: passwords are proved by binding with them"),
    _number("ldapcleartext", 0, 2, "0", "clear text in userPassword; 1: and CRAM-MD5, 2: and APOP"),
    _id("ldapuid", "the user id of records without qmailUID"),
    _id("ldapgid", "the group id of records without qmailGID"),
    _line(
        "ldapmessagestore",
        "none",
        "where a relative mailMessageStore lies",
        values.message_store,
    ),
    _line(
        "ldapdefaultdotmode",
        "ldaponly",
        "delivery's business: checked, not used",
        values.dot_mode,
    ),
    _number(
        "defaultquotasize",
        0,
        _LARGEST_QUOTA,
        "0: none",
        "octets in a mailbox without a quota of its own",
    ),
    _number(
        "defaultquotacount",
        0,
        _LARGEST_QUOTA,
        "0: none",
        "messages in a mailbox without a quota of its own",
    ),
    _flag("ldapcluster", "0", "1: sessions are forwarded to the mailHost"),
    _list("ldapclusterhosts", "none", "further names of this host, besides me"),
    _list("pop3routes", "none", "where a mailHost is reached", values.routes),
    _list("pop3trusted", "none", "who is believed about the client it names", values.networks),
    _number("pop3clustertls", 0, 2, "0", "TLS to other members; 1: where offered, 2: verified"),
    _file("pop3clusterca", "the system's", "certificates that pop3clustertls 2 trusts"),
    _flag("requiretls", "0", "1: no password is taken before TLS"),
    _list("pop3limits", "none changed", "limits, as name:number", values.limits),
    _flag("ldaplocaldelivery", "1", "1: logins that the directory lacks are sought in passwd"),
    _line("dirmaker", "none", "the program that makes missing homes"),
    _line(
        "defaultdelivery",
        "that of aliasempty",
        "the mailbox, relative to home, of records that name none",
        values.delivery,
    ),
    _line(
        "aliasempty",
        "./Maildir/",
        "the same, where there is no defaultdelivery",
        values.delivery,
        field="defaultdelivery",
        unless="defaultdelivery",
    ),
    # Often readable for root alone; none but the server needs it, which root starts.
    _file(
        "cert.pem",
        "none",
        "certificates and key for TLS with clients",
        field="certificate",
        readable=False,
    ),
)
"""Every control file, in the order in which they are read, documented and shown."""
