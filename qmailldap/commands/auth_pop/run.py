"""The way of one login through auth_pop, and the lines it leaves on standard error."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from qmailldap.account import Account, RemoteAccount, path_is_allowed
from qmailldap.commands.auth_pop.decision import decide
from qmailldap.commands.auth_pop.request import Arguments, BadRequest, Login
from qmailldap.commands.auth_pop.resolver import Resolver
from qmailldap.control import Control, ControlError, default_control, read_control
from qmailldap.loglevel import Kind, Log, complaint, current_session, on_standard_error
from qmailldap.printable import printable
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.session import Session

__all__ = ["run"]

T = TypeVar("T")

_log = Log(namespace="qmailldap.auth_pop")


def run(request: Arguments, login: Login | BadRequest) -> int:
    """Check the login and do what it asks for; the exit code, where that is not the subprogram's.

    Source of the codes: reference.md, "The decision".
    """
    globalLogBeginner.beginLoggingTo(
        [on_standard_error("auth_pop")], redirectStandardIO=False, discardBuffer=True
    )
    problem = complaint()
    if problem:
        _log.unmasked("environment {problem}", problem=problem)
    session = Session(_log, _peer)
    name = b"" if isinstance(login, BadRequest) else login.name
    before = current_session.set(session.id)
    try:
        return _serve(request, _expect_login(login), session)
    except LoginRefused as refused:
        session.refused(name, refused)
        if refused.refusal is Refusal.MEMBER_REFUSED:
            from qmailldap.commands.auth_pop.forwarding import answer

            # It is all that the client is to hear.
            answer(refused)
            return 0
        return refused.shown.outcome.exit_code
    except MemoryError:
        session.refused(name, LoginRefused(Refusal.OUT_OF_MEMORY))
        return Refusal.OUT_OF_MEMORY.outcome.exit_code
    except Exception:
        session.failed("login", user=name)
        return Refusal.TEMPORARY.outcome.exit_code
    finally:
        current_session.reset(before)


def _expect_login(login: Login | BadRequest) -> Login:
    if isinstance(login, BadRequest):
        refusal = Refusal.RECORD_INCORRECT if login.malformed else Refusal.TEMPORARY
        raise LoginRefused(refusal, str(login))
    return login


def _serve(request: Arguments, login: Login, session: Session) -> int:
    try:
        control = read_control(request.control or default_control())
    except ControlError as error:
        raise LoginRefused(Refusal.CONFIGURATION, str(error)) from None
    for warning in control.warnings:
        # Not for every login; `qmailldap showctl` tells them.
        _log.warn("control {doubt}", doubt=warning, kind=Kind.DEBUG)
    account = _in_reactor(
        lambda reactor: _decide_and_forward(reactor, request, control, login, session)
    )
    if account is None:
        return 0
    from qmailldap.commands.auth_pop.ownership import (
        execute,
        expect_program,
        move_in,
        run_pbs_tool,
    )

    mailbox, variables = move_in(account, control.dirmaker, _log)
    environment = _environment(variables)
    expect_program(request.subprogram[0])
    run_pbs_tool(request.pbstool, environment, _log)
    session.left_to(os.fsencode(request.subprogram[0]), login.name, account.uid, mailbox)
    return execute(request.subprogram, environment)


async def _decide_and_forward(
    reactor: Any, request: Arguments, control: Control, login: Login, session: Session
) -> Account | None:
    """Whose mail it is, where it is here; else the session has been forwarded, and has ended."""
    delivery = _delivery(request, control)
    account = await decide(reactor, control, login.name, login.password, delivery)
    if isinstance(account, RemoteAccount):
        await _forward(reactor, request, control, account, session, login.password)
        return None
    return account


async def _forward(
    reactor: Any,
    request: Arguments,
    control: Control,
    account: RemoteAccount,
    session: Session,
    password: bytes,
) -> None:
    from qmailldap.commands.auth_pop.forwarding import Forwarding
    from qmailldap.commands.auth_pop.ownership import run_pbs_tool

    forwarding = Forwarding(reactor, control, os.environ)
    forwarding.give_up_rights()
    run_pbs_tool(request.pbstool, _environment(account.environment()), _log)
    forwarded = await forwarding.log_in(account, session.client(password))
    session.forwarded(account.login, forwarded)
    session.relayed(account.mail_host, await forwarding.relay(forwarded))


def _in_reactor(work: Callable[[Any], Coroutine[Deferred[Any], Any, T]]) -> T:
    """What ``work`` comes to in a reactor that runs for it alone."""
    from twisted.internet import reactor as default_reactor

    reactor: Any = default_reactor
    results: list[T | Failure] = []

    def finished(result: T | Failure) -> None:
        results.append(result)
        reactor.stop()

    reactor.installNameResolver(Resolver(reactor))

    def begin() -> None:
        Deferred.fromCoroutine(work(reactor)).addBoth(finished)

    reactor.callWhenRunning(begin)
    # No handler: a signal ends this program as it would end the original.
    reactor.run(installSignalHandlers=False)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


def _delivery(request: Arguments, control: Control) -> str:
    """The mailbox of records that name none."""
    delivery = request.delivery
    if delivery is None:
        return control.defaultdelivery
    if not path_is_allowed(delivery):
        _log.warn(
            "arguments {delivery} is no path of a mailbox: {default} is made where there is none",
            delivery=printable(os.fsencode(delivery)),
            default=control.defaultdelivery,
        )
        return control.defaultdelivery
    return delivery


def _environment(variables: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """This program's environment with the variables of a login, MAILDIR only from there."""
    environment = {**os.environb, **variables}
    if b"MAILDIR" not in variables:
        environment.pop(b"MAILDIR", None)
    return environment


def _peer() -> Any:
    """The client, as tcp-environ(5) has it."""
    port = os.environ.get("TCPREMOTEPORT", "")
    number = int(port) if port.isdecimal() and len(port) <= 5 else 0
    return IPv4Address("TCP", os.environ.get("TCPREMOTEIP", ""), number)
