"""Where the log goes, and in which form: the options --log and --log-format.

Without them twistd decides, as for every program of Twisted. It asks the application for an
observer before it makes one of its own; that is how all that is logged, from twistd's first line
on, comes here. So the service must be given to the application before twistd begins to log, as
``twistd qmailldap-pop3`` and the tac file do.
"""

from __future__ import annotations

import os
import sys
import syslog
from collections.abc import Mapping
from typing import Any

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.components import Componentized
from zope.interface import implementer

from qmailldap.log_forms import Form, JSONForm, TextForm, journal_form, priority_of
from qmailldap.options import NAME, CannotStart, Options

__all__ = [
    "STANDARD_ERROR",
    "STANDARD_OUTPUT",
    "Lines",
    "Syslog",
    "form_of",
    "take_over",
    "workers_log_themselves",
]

STANDARD_OUTPUT = 1
STANDARD_ERROR = 2

_LONGEST_OF_SYSLOG = 8000
"""Octets of a line of JSON that is sent to syslog: rsyslog takes 8096 with what stands before."""

_TWISTD_S_PREFIX = "twisted"


def form_of(
    options: Mapping[str, Any], worker: int | None = None, *, most: int | None = None
) -> Form:
    """The form that the options ask for; of at most so many octets, where it is JSON."""
    journal = options["log"] == "journal"
    form: Form
    if options["log-format"] == "json":
        form = JSONForm(worker, most=most)
    else:
        # syslog and the journal have times of their own.
        form = TextForm(worker, timed=not journal and options["log"] != "syslog")
    return journal_form(form) if journal else form


@implementer(ILogObserver)
class Lines:
    """Writes lines to a descriptor, each event in one piece where the kernel has room for it."""

    def __init__(self, descriptor: int, form: Form) -> None:
        self.descriptor = descriptor
        self._form = form

    def __call__(self, event: LogEvent) -> None:
        line = self._form(event)
        try:
            while line:
                line = line[os.write(self.descriptor, line) :]
        except OSError:
            # Nobody reads any more, and there is nowhere else to say it.
            return


@implementer(ILogObserver)
class Syslog:
    """Writes lines by syslog(3), under the name ``ident``, each with the priority of its level.

    syslog(3) may wait for a syslogd that does not read: for how long is not in our hands.
    """

    def __init__(self, form: Form, ident: str, facility: int, options: int) -> None:
        self._form = form
        syslog.openlog(ident, options, facility)

    def __call__(self, event: LogEvent) -> None:
        octets = self._form(event)
        if octets:
            priority = priority_of(event)
            for line in octets[:-1].split(b"\n"):
                text = line.decode("utf-8", "replace").replace("\0", "\\x00")
                syslog.syslog(priority, text)


def take_over(application: object, options: Options) -> None:
    """Have twistd log as the options say, where they say anything, and not as it would.

    Raises `CannotStart` where that cannot be.
    """
    asked = _asked(options)
    if not asked or not isinstance(application, Componentized):
        return
    # Not before it is needed: no worker has any of it.
    from qmailldap.log_of_twistd import Unknown, config_of_twistd

    try:
        config = config_of_twistd(getattr(options, "parent", None))
    except Unknown as error:
        raise CannotStart(f"{asked}: {error}") from None
    if config["logger"]:
        raise CannotStart(f"{asked}: twistd's --logger says already how is logged")
    in_foreground = bool(config["nodaemon"] or config["debug"])
    if options["log"] in ("stderr", "journal") and not in_foreground:
        raise CannotStart(f"{asked}: a daemon has no standard error; twistd -n stays with it")
    application.setComponent(ILogObserver, _observer(options, config))


def _asked(options: Options) -> str:
    """The option that is not as by default."""
    if options["log"]:
        return f"--log {options['log']}"
    return "" if options["log-format"] == "text" else f"--log-format {options['log-format']}"


def _observer(options: Options, config: Mapping[str, Any]) -> ILogObserver:
    prefix = str(config["prefix"])
    if options["log"] == "syslog":
        form = form_of(options, most=_LONGEST_OF_SYSLOG)
        ident = NAME if prefix == _TWISTD_S_PREFIX else prefix
        # At once, as a directory that is entered later may have no way to syslogd.
        return Syslog(form, ident, syslog.LOG_MAIL, syslog.LOG_PID | syslog.LOG_NDELAY)
    if options["log"]:
        return Lines(STANDARD_ERROR, form_of(options))
    if config["syslog"]:
        # As twistd itself has it.
        return Syslog(form_of(options, most=_LONGEST_OF_SYSLOG), prefix, syslog.LOG_USER, 0)
    from qmailldap.log_of_twistd import observer_of_twistd

    form = form_of(options)
    observer = observer_of_twistd(config)
    observer.formatEvent = lambda event: form(event).decode("utf-8")
    return observer


def workers_log_themselves() -> bool:
    """Whether workers can write where this process logs, as to a terminal; False, too, where that
    cannot be told.

    They cannot where a file is rotated, or where the log has a sender.
    """
    observers = getattr(globalLogPublisher, "_observers", ())
    return any(
        isinstance(each, Lines) or getattr(each, "_outFile", None) is sys.__stdout__
        for each in observers
    )
