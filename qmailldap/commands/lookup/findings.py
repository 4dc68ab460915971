"""What `qmailldap lookup` has found out, as plain data.

How it is told is the business of `text` and `json_text`. No I/O may enter here, and no password or
value of userPassword. Text of the directory is as it came, but for octets that are not UTF-8, which
stand as ``\\xNN``.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from qmailldap.maildir.inspection import Inspection
from qmailldap.quota import Quota
from qmailldap.refusal import LoginRefused, Refusal

__all__ = [
    "CLEAR_TEXT",
    "Asked",
    "Attribute",
    "Findings",
    "Looked",
    "Mail",
    "Mailbox",
    "Names",
    "Password",
    "Search",
    "Verdict",
    "as_text",
]


CLEAR_TEXT = "clear text"
"""Stands in `Password.schemes` for a value that is the password itself."""


def as_text(octets: bytes) -> str:
    """A value of the directory as text."""
    return octets.decode("utf-8", "backslashreplace")


@attrs.frozen
class Asked:
    """What was asked about: ``by`` is ``user``, ``mail`` or ``filter``, ``control`` a directory."""

    by: str
    value: str
    control: str


@attrs.frozen
class Search:
    """One search. ``by`` is ``user``, ``mail`` or ``filter``.

    ``server`` is None where none has answered; ``seconds`` are those it took, and ``troubles``
    what went wrong with others before. ``entries`` are DNs, two where there are two or more;
    ``problem`` says why there is no answer.
    """

    by: str
    base: str
    filter: str
    server: str | None = None
    seconds: float | None = None
    troubles: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    problem: str = ""


@attrs.frozen
class Attribute:
    """An attribute that counts: its values in the entry, and what was made of it.

    ``used`` is what counts, None for nothing; ``source`` is where that is from: ``directory``, a
    control file's name, or ``default``. ``meaning`` says it in words.
    """

    name: str
    values: tuple[str, ...]
    used: str | int | None
    source: str
    meaning: str


@attrs.frozen
class Password:
    """How the password is proved, and what is stored of it that may be told.

    ``by`` is ``hash``, ``bind`` or ``shadow``; ``schemes`` are names with cost parameters, one for
    each value that is well-formed, ``values`` how many there are, None where they were not asked
    for. ``problem`` says why no password lets in. ``right`` is None where none was tried.
    """

    by: str
    values: int | None = None
    schemes: tuple[str, ...] = ()
    problem: str = ""
    right: bool | None = None


@attrs.frozen
class Mail:
    """Where the mail is: here, or with the member of the cluster that ``mail_host`` names.

    ``host`` and ``port`` are where that is reached, ``addresses`` those of ``host``.
    """

    is_here: bool
    mail_host: str | None = None
    host: str = ""
    port: int = 0
    addresses: tuple[str, ...] = ()


@attrs.frozen
class Looked:
    """As whom the mailbox was looked at; ``is_owner`` says that these are the account's rights."""

    uid: int
    gid: int
    is_owner: bool


@attrs.frozen
class Names:
    """What passwd and group call the ids that are shown; without those that they do not know."""

    users: Mapping[int, str] = attrs.field(factory=dict)
    groups: Mapping[int, str] = attrs.field(factory=dict)


@attrs.frozen
class Mailbox:
    """The account's ids, home and mailbox, and what is on disk.

    ``home`` and ``mailbox`` are paths; ``inspection`` is None where looking failed, and ``problem``
    says why a session could not begin. ``dirmaker`` is the program that makes homes.
    """

    uid: int
    gid: int
    home: str
    mailbox: str
    quota: Quota
    max_message_size: int
    looked: Looked
    inspection: Inspection | None = None
    problem: str = ""
    dirmaker: str | None = None
    names: Names = attrs.field(factory=Names)


@attrs.frozen
class Verdict:
    """What becomes of the login; ``refused`` is None where it is let in.

    ``proved`` says that a password was tried, and right. ``is_complete`` is False where nothing
    speaks against the login, but not all could be seen. ``condition`` is what else must come true,
    as "if ..."; ``forwarded_to`` is the member that would have to let in, which was not asked.
    """

    reason: str
    refused: LoginRefused | None = None
    proved: bool = False
    is_complete: bool = True
    condition: str = ""
    forwarded_to: str = ""

    @property
    def exit_code(self) -> int:
        return 0 if self.refused is None else self.refused.refusal.outcome.exit_code

    @property
    def refusal(self) -> Refusal | None:
        return None if self.refused is None else self.refused.refusal


@attrs.frozen
class Findings:
    """All that is known in the end; what was not come to is empty or None.

    ``known_by`` is ``directory`` or ``passwd``, ``dn`` the entry of the login, ``passwd`` whether
    that knows a login which the directory does not, None where it was not asked. ``notes`` are
    lines about what an administrator should know besides.
    """

    asked: Asked
    verdict: Verdict
    login: str | None = None
    searches: tuple[Search, ...] = ()
    known_by: str | None = None
    passwd: bool | None = None
    dn: str | None = None
    attributes: tuple[Attribute, ...] = ()
    password: Password | None = None
    mail: Mail | None = None
    mailbox: Mailbox | None = None
    notes: tuple[str, ...] = ()

    @property
    def finds_nobody(self) -> bool:
        """Whether there is no login, as the address or the filter leads to none."""
        return self.login is None and bool(self.searches)
