"""The control directory: small files, one fact each, read into one frozen object.

The files, their kinds and their defaults are those of reference.md, "Control files". A new site
fact is a new field here, with its file's name, and a row in docs/control-files.md.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from pathlib import Path

import attrs

from qmailldap.account import HIGHEST_ID, LOWEST_ID, AccountDefaults, path_is_allowed
from qmailldap.ip import parse_ip
from qmailldap.quota import Quota

__all__ = [
    "DEFAULT_CONTROL",
    "DOT_MODES",
    "POP3_PORT",
    "Control",
    "ControlError",
    "Route",
    "ServerAddress",
    "default_control",
    "read_control",
]

DEFAULT_CONTROL = "/var/qmail/control"
"""Where the control files are, unless somebody says otherwise."""

DOT_MODES = ("both", "dotonly", "ldaponly", "ldapwithprog", "none")
LDAP_PORT = 389
POP3_PORT = 110

_LARGEST_FILE = 1024 * 1024
_DIGITS = re.compile(rb"[0-9]+")
# Twisted's resolver knows no other names; "--" in third place is IDNA's, and only as in "xn--".
_LABEL = r"(?!(?!xn)..--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# A last label of digits only is that of an address, or of a port in the wrong place.
_HOST_NAME = re.compile(
    rf"(?=.{{1,253}}\Z)(?!(?:.*\.)?[0-9]+\.?\Z){_LABEL}(?:\.{_LABEL})*\.?\Z", re.IGNORECASE
)
# Wider than a host name: a route leads also to where a mailHost that no resolver takes is kept.
_ROUTED = re.compile(r"(?:\.?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?)?\Z")
_CIDR = re.compile(r"[0-9a-fA-F.:]+(?:/[0-9]{1,3})?\Z")


class ControlError(Exception):
    """A control file that a server cannot be started with.

    ``file`` is its path, ``problem`` says what is wrong with it and names the value, unless that is
    a secret.
    """

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file = file
        self.problem = problem


@attrs.frozen
class ServerAddress:
    """Where a server listens: one of the directory, unless the port is given."""

    host: str
    port: int = LDAP_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class Route:
    """Where a member of the cluster is reached.

    ``pattern``, in lower case, is a mailHost, or the end of many if it starts with a dot, or empty,
    which is every mailHost. ``host`` is a host name or an address, empty for the mailHost itself.
    """

    pattern: str
    host: str = ""
    port: int = POP3_PORT


@attrs.frozen(kw_only=True)
class Control:
    """The facts of the site; each field is the control file of its name, or says which it is.

    ``ldaptimeout`` is in seconds, the quota's size in octets. ``warnings`` are lines about files
    that can be used but should be looked at.
    """

    ldapserver: tuple[ServerAddress, ...]
    me: str | None = None
    ldapbasedn: str = ""
    ldapobjectclass: str | None = None
    ldaplogin: str = ""
    ldappassword: bytes = attrs.field(default=b"", repr=False)
    ldaptimeout: int = 30
    ldaprebind: bool = False
    ldapuid: int | None = None
    ldapgid: int | None = None
    ldapmessagestore: str | None = None
    ldapdefaultdotmode: str = "ldaponly"
    defaultquota: Quota = attrs.field(factory=Quota)
    """defaultquotasize and defaultquotacount"""
    ldapcluster: bool = False
    ldapclusterhosts: tuple[str, ...] = ()
    pop3routes: tuple[Route, ...] = ()
    pop3trusted: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    """IPv4 also where the file writes it as IPv4-mapped IPv6"""
    pop3clustertls: int = 0
    """0: no TLS between members, 1: where it is offered, 2: verified"""
    pop3clusterca: Path | None = None
    """where there is one"""
    ldaplocaldelivery: bool = True
    dirmaker: str | None = None
    defaultdelivery: str = "./Maildir/"
    """defaultdelivery, else aliasempty"""
    certificate: Path | None = None
    """cert.pem, where there is one"""
    warnings: tuple[str, ...] = ()
    directory: str = attrs.field(default="", eq=False)
    """where the files are"""

    def error(self, name: str, problem: str) -> ControlError:
        """A fault of the file ``name`` that somebody else has found."""
        return ControlError(os.path.join(self.directory, name), problem)

    @property
    def account_defaults(self) -> AccountDefaults:
        """What these files say for records that are silent."""
        return AccountDefaults(
            uid=self.ldapuid,
            gid=self.ldapgid,
            message_store=self.ldapmessagestore,
            quota=self.defaultquota,
            delivery=self.defaultdelivery,
        )


def default_control() -> str:
    """The control directory that the environment names by QMAILLDAP_CONTROL, else the usual one."""
    return os.environ.get("QMAILLDAP_CONTROL") or DEFAULT_CONTROL


def read_control(directory: str | os.PathLike[str]) -> Control:
    """Read every control file in ``directory``.

    Raises `ControlError` for a required file that is missing, a file that cannot be read, a value
    out of its range.
    """
    files = _Files(Path(directory))
    ldapserver = tuple(
        _server_address(files, word) for line in files.list("ldapserver") for word in line.split()
    )
    if not ldapserver:
        raise files.error("ldapserver", "names no directory server, and one is required")
    cluster = files.flag("ldapcluster", default=False)
    me = files.line("me")
    if cluster and me is None:
        raise files.error("me", "is missing or empty, and ldapcluster is 1, which requires it")
    message_store = files.line("ldapmessagestore")
    if message_store is not None:
        if not message_store.startswith("/"):
            raise files.error("ldapmessagestore", f"{message_store!r} is not an absolute path")
        message_store = message_store.rstrip("/") + "/"
    dot_mode = (files.line("ldapdefaultdotmode") or "ldaponly").lower()
    if dot_mode not in DOT_MODES:
        raise files.error("ldapdefaultdotmode", f"{dot_mode!r} is none of {', '.join(DOT_MODES)}")
    object_class = files.line("ldapobjectclass")
    login, password = files.line("ldaplogin") or "", files.secret("ldappassword")
    if bool(login) != bool(password):
        given, missing = ("ldaplogin", "ldappassword")[:: 1 if login else -1]
        files.warn(missing, f"is missing or empty: without it, {given} makes an anonymous bind")
    cluster_tls = files.number("pop3clustertls", 0, 2, default=0)
    cluster_ca = files.existing("pop3clusterca")
    if cluster_ca is not None and cluster_tls < 2:
        files.warn("pop3clusterca", "is not used: only pop3clustertls 2 verifies certificates")
    routes = _routes(files)
    if routes and not cluster:
        files.warn("pop3routes", "is not used: ldapcluster is not 1")
    return Control(
        ldapserver=ldapserver,
        me=me,
        ldapbasedn=files.line("ldapbasedn") or "",
        ldapobjectclass=object_class,
        ldaplogin=login,
        ldappassword=password,
        ldaptimeout=files.number("ldaptimeout", 1, 3600, default=30),
        ldaprebind=files.flag("ldaprebind", default=False),
        ldapuid=files.id("ldapuid"),
        ldapgid=files.id("ldapgid"),
        ldapmessagestore=message_store,
        ldapdefaultdotmode=dot_mode,
        defaultquota=Quota(
            size=files.number("defaultquotasize", 0, 2**63 - 1, default=0),
            count=files.number("defaultquotacount", 0, 2**63 - 1, default=0),
        ),
        ldapcluster=cluster,
        ldapclusterhosts=files.list("ldapclusterhosts"),
        pop3routes=routes,
        pop3trusted=tuple(_network(files, line) for line in files.list("pop3trusted")),
        pop3clustertls=cluster_tls,
        pop3clusterca=cluster_ca,
        ldaplocaldelivery=files.flag("ldaplocaldelivery", default=True),
        dirmaker=files.line("dirmaker"),
        defaultdelivery=_default_delivery(files),
        certificate=files.existing("cert.pem"),
        warnings=tuple(files.warnings),
        directory=os.fspath(directory),
    )


class _Files:
    """Reads the files of one directory by the rules of their kinds."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.warnings: list[str] = []
        try:
            is_directory = stat.S_ISDIR(os.stat(directory).st_mode)
        except OSError as error:
            raise ControlError(str(directory), f"cannot be used: {error.strerror}") from None
        if not is_directory:
            raise ControlError(str(directory), "is not a directory")

    def error(self, name: str, problem: str) -> ControlError:
        return ControlError(str(self._directory / name), problem)

    def warn(self, name: str, problem: str) -> None:
        self.warnings.append(f"{self._directory / name}: {problem}")

    def line(self, name: str) -> str | None:
        """The first line; None where there is no such file or the line is empty."""
        raw = self._first_line(name)
        return self._text(name, raw) if raw else None

    def secret(self, name: str) -> bytes:
        """The first line as octets, empty by default; warned of when everybody may read it."""
        line = self._first_line(name)
        if line and os.stat(self._directory / name).st_mode & stat.S_IROTH:
            self.warn(name, "can be read by everyone")
        return line or b""

    def list(self, name: str) -> tuple[str, ...]:
        """Every line that is neither empty nor a comment."""
        lines = (_stripped(line) for line in (self._read(name) or b"").split(b"\n"))
        return tuple(self._text(name, line) for line in lines if line and line[:1] != b"#")

    def number(
        self, name: str, least: int, most: int, *, default: int, unset: int | None = None
    ) -> int:
        """The digits that the first line starts with, in ``least`` … ``most``.

        The number ``unset``, where there is one, stands for no file.
        """
        number = self._digits(name)
        if number is None or number == unset:
            return default
        if not least <= number <= most:
            raise self.error(name, f"{number} is out of range: {least} to {most}")
        return number

    def flag(self, name: str, *, default: bool) -> bool:
        """A number that is 0 or 1."""
        return bool(self.number(name, 0, 1, default=int(default)))

    def id(self, name: str) -> int | None:
        """A user or group id; 0 is the original's "not set"."""
        return self.number(name, LOWEST_ID, HIGHEST_ID, default=0, unset=0) or None

    def existing(self, name: str) -> Path | None:
        """The path of the file, where there is one; it must be readable."""
        path = self._directory / name
        if not os.path.lexists(path):
            return None
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            raise self.error(name, "is not a file that can be read")
        return path

    def _digits(self, name: str) -> int | None:
        line = self._first_line(name)
        if line is None:
            return None
        digits = _DIGITS.match(line)
        if digits is None:
            self.warn(name, f"{line[:80]!r} starts with no digit, and is as good as no file")
            return None
        if len(digits[0].lstrip(b"0")) > 20:
            raise self.error(name, f"a number of {len(digits[0])} digits is out of range")
        return int(digits[0])

    def _first_line(self, name: str) -> bytes | None:
        content = self._read(name)
        return None if content is None else _stripped(content.split(b"\n", 1)[0])

    def _text(self, name: str, raw: bytes) -> str:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(name, f"{raw!r} is not UTF-8 text") from None
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            raise self.error(name, f"{text!r} holds a control character")
        return text

    def _read(self, name: str) -> bytes | None:
        path = self._directory / name
        try:
            with open(path, "rb", opener=_open_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise self.error(name, "is not a regular file")
                content = file.read(_LARGEST_FILE + 1)
        except FileNotFoundError as error:
            if os.path.islink(path):
                raise self.error(name, f"cannot be read: {error.strerror}") from None
            return None
        except OSError as error:
            raise self.error(name, f"cannot be read: {error.strerror}") from None
        if len(content) > _LARGEST_FILE:
            raise self.error(name, f"is larger than {_LARGEST_FILE} octets")
        return content


def _open_without_waiting(path: str, flags: int) -> int:
    """A FIFO would otherwise wait for somebody to write to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _stripped(line: bytes) -> bytes:
    return line.rstrip(b" \t\n")


def _server_address(files: _Files, word: str) -> ServerAddress:
    """What `_host_and_port` reads, or a v6 address without brackets."""
    if word.count(":") > 1 and parse_ip(word) is not None:
        return ServerAddress(word)
    try:
        host, port = _host_and_port(word, LDAP_PORT)
    except ValueError as error:
        raise files.error("ldapserver", f"{word!r} {error}") from None
    return ServerAddress(host, port)


def _routes(files: _Files) -> tuple[Route, ...]:
    """``mailhost:`` and what `_host_and_port` reads, the host of which may be left out."""
    routes: dict[str, Route] = {}
    for line in files.list("pop3routes"):
        mail_host, colon, rest = line.partition(":")
        pattern = mail_host.lower()
        if not colon or not _ROUTED.match(pattern):
            raise files.error("pop3routes", f"{line!r} is not mailhost:address:port")
        if pattern in routes:
            raise files.error("pop3routes", f"{line!r} is a second route of {pattern!r}")
        try:
            routes[pattern] = Route(pattern, *_host_and_port(rest, POP3_PORT, hosts_optional=True))
        except ValueError as error:
            raise files.error("pop3routes", f"{line!r}: {rest!r} {error}") from None
    return tuple(routes.values())


def _host_and_port(text: str, default: int, *, hosts_optional: bool = False) -> tuple[str, int]:
    """``host``, ``host:port``, ``address``, ``[v6 address]`` or ``[v6 address]:port``.

    Raises a ValueError that says of ``text`` what is wrong with it.
    """
    bad = ValueError("is neither a host name or address nor host:port")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or parse_ip(host) is None:
            raise bad
        port = rest[1:] if rest else str(default)
    else:
        host, colon, port = text.partition(":")
        port = port if colon else str(default)
        if not (
            _HOST_NAME.match(host) or parse_ip(host) is not None or (hosts_optional and not host)
        ):
            raise bad
    if not re.fullmatch("[0-9]+", port):
        raise bad
    number = int(port.lstrip("0")[:6] or "0")
    if not 1 <= number <= 65535:
        raise ValueError("has a port that is out of range: 1 to 65535")
    return host, number


def _network(files: _Files, line: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """An address or a network in CIDR notation."""
    # Without the pattern, netmasks and scope ids would be taken, which promise what is not kept.
    try:
        network = ipaddress.ip_network(line, strict=False) if _CIDR.match(line) else None
    except ValueError:
        network = None
    if network is not None and network.prefixlen == 0:
        files.warn("pop3trusted", f"{line} lets every client say that it is another")
    if network is None:
        problem = f"{line!r} is neither an address nor a network such as 192.0.2.0/24"
        raise files.error("pop3trusted", problem)
    if network.network_address != ipaddress.ip_address(line.partition("/")[0]):
        raise files.error("pop3trusted", f"{line!r} has host bits set: {network} is the network")
    mapped = network.network_address.version == 6 and network.network_address.ipv4_mapped
    if mapped and network.prefixlen >= 96:
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _default_delivery(files: _Files) -> str:
    for name in ("defaultdelivery", "aliasempty"):
        line = files.line(name)
        if line is None:
            continue
        if line[0] in "|&#":
            # A delivery instruction: right for deliveries, and no business of ours.
            files.warn(name, f"{line!r} names no mailbox and is not used")
        elif not path_is_allowed(line):
            raise files.error(name, f"{line!r} cannot be the path of a mailbox")
        else:
            return line
    return "./Maildir/"
