"""What all sessions of one listening port have in common."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.cred.portal import Portal
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime

from qmailldap.figures.tally import Tally
from qmailldap.loglevel import Log
from qmailldap.pop3.admission import Admission
from qmailldap.pop3.limits import Limits
from qmailldap.present import Present

__all__ = ["Settings"]


@attrs.frozen(kw_only=True)
class Settings:
    """``hostname`` is the name in the greeting.

    ``trusts`` tells of an address whether it may speak for others. ``tls`` makes the server side of
    TLS, None where there is no certificate; ``requires_tls``: no password is taken without.
    ``cleartext`` is the control file ldapcleartext: from 1 on there is CRAM-MD5, from 2 on APOP.
    ``present`` is told who comes and goes, ``tally`` counts what happens.
    """

    portal: Portal
    hostname: str
    clock: IReactorTime
    limits: Limits
    trusts: Callable[[str], bool]
    tls: IOpenSSLServerConnectionCreator | None
    requires_tls: bool
    cleartext: int
    admission: Admission
    present: Present
    log: Log
    tally: Tally | None = None
