"""Directory servers that are down, hang or come back: nobody is told that a password is wrong."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from .clients import refuse_or_accept
from .ports import HOST, unused_port
from .processes import wait_until
from .site import PASSWORD, SiteTestCase
from .slapd import Slapd

ACCEPTED = "accepted"
NO_DIRECTORY = "-ERR [SYS/TEMP] unable to contact authorization server"
WRONG = "-ERR [AUTH] authorization failed"

TIMEOUT = 2
"""ldaptimeout, in seconds: what an operation may take in these tests."""

SOON = 5.0
"""Seconds after which a directory that has come back must be in use."""


class OneDirectoryTests(SiteTestCase):
    async def test_a_directory_that_comes_up_after_the_server(self) -> None:
        self.user("joe")
        slapd = self.new_slapd()
        self.server = self.new_server(slapd.address)
        await self.server.start()
        self.assertEqual(await self.refusal_of("joe"), NO_DIRECTORY)
        await slapd.start()
        await self.assert_accepted_soon("joe")

    async def test_a_directory_that_restarts_between_logins_is_not_noticed(self) -> None:
        self.user("joe")
        await self.start()
        for _ in range(3):
            self.assertEqual(await self.refusal_of("joe"), ACCEPTED)
            await self.slapd.stop()
            await self.slapd.start()
        self.assertEqual(await self.refusal_of("joe"), ACCEPTED)

    async def test_a_directory_that_crashes_between_logins_is_not_noticed(self) -> None:
        for rebind in ("0", "1"):
            self.user(f"joe{rebind}")
        self.slapd = self.new_slapd()
        await self.slapd.start()
        for rebind in ("0", "1"):
            name = f"server-{rebind}"
            self.server = self.new_server(self.slapd.address, name, control={"ldaprebind": rebind})
            await self.server.start()
            self.assertEqual(await self.refusal_of(f"joe{rebind}"), ACCEPTED)
            self.slapd.kill()
            await self.slapd.start()
            self.assertEqual(await self.refusal_of(f"joe{rebind}"), ACCEPTED)
            self.assertEqual(await self.refusal_of(f"joe{rebind}", "wrong"), WRONG)

    async def test_a_directory_that_hangs_is_waited_for_no_longer_than_allowed(self) -> None:
        self.user("joe")
        await self.start(ldaptimeout=str(TIMEOUT))
        self.assertEqual(await self.refusal_of("joe"), ACCEPTED)
        self.slapd.pause()
        begun = time.monotonic()
        self.assertEqual(await self.refusal_of("joe"), NO_DIRECTORY)
        self.assertLess(time.monotonic() - begun, TIMEOUT + 2)
        self.slapd.resume()
        await self.assert_accepted_soon("joe")

    async def test_a_short_hang_is_waited_out(self) -> None:
        self.user("joe")
        await self.start(ldaptimeout="20")
        self.slapd.pause()
        login = Deferred.fromCoroutine(self.refusal_of("joe"))
        await deferToThread(time.sleep, 0.5)  # it is the hang that takes time here
        self.slapd.resume()
        self.assertEqual(await login, ACCEPTED)

    async def test_a_service_account_that_is_refused_is_no_fault_of_the_users(self) -> None:
        self.user("joe")
        self.secrets.add("not-the-service-password")
        await self.start(ldappassword="not-the-service-password")
        refusal = await self.refusal_of("joe")
        self.assertEqual(refusal, NO_DIRECTORY)
        self.assertRegex(self.server.log, r"(?i)ldaplogin|bind")

    async def test_what_listens_there_is_not_a_directory(self) -> None:
        self.user("joe")
        slapd = self.new_slapd()
        await slapd.start()
        talker = socket.create_server((HOST, 0))
        self.addCleanup(talker.close)
        stop = threading.Event()
        self.addCleanup(stop.set)
        threading.Thread(target=_talk_nonsense, args=(talker, stop), daemon=True).start()
        nonsense = f"{HOST}:{talker.getsockname()[1]}"
        for name, ldapserver, expected in (
            ("alone", nonsense, NO_DIRECTORY),
            ("first", f"{nonsense}\n{slapd.address}", ACCEPTED),
        ):
            self.server = self.new_server(ldapserver, name, control={"ldaptimeout": str(TIMEOUT)})
            await self.server.start()
            self.assertEqual(await self.refusal_of("joe"), expected, name)

    async def assert_accepted_soon(self, user: str) -> None:
        await _assert_accepted_soon(self.server.port, user)


class LoadTests(SiteTestCase):
    async def test_a_crash_under_load_refuses_nobody_for_good(self) -> None:
        await self.crash_under_load(ldaprebind="0")

    async def test_a_crash_under_load_with_rebind(self) -> None:
        await self.crash_under_load(ldaprebind="1")

    async def crash_under_load(self, **control: str) -> None:
        self.user("joe")
        await self.start(ldaptimeout=str(TIMEOUT), **control)
        load = Load(self.server.port, "joe", PASSWORD, threads=6)
        self.addCleanup(load.stop)
        await load.wait_for_more(ACCEPTED, 20)
        for _ in range(2):
            self.slapd.kill()
            await load.wait_for_more(NO_DIRECTORY, 5)
            await self.slapd.start()
            begun = time.monotonic()
            await load.wait_for_more(ACCEPTED, 20)
            self.assertLess(time.monotonic() - begun, SOON)
        last = time.monotonic()
        await load.wait_for_more(ACCEPTED, 20)
        await load.stop()

        outcomes = Counter(attempt.outcome for attempt in load.attempts)
        self.assertEqual(set(outcomes), {ACCEPTED, NO_DIRECTORY}, outcomes)
        slowest = max(attempt.seconds for attempt in load.attempts)
        self.assertLess(slowest, TIMEOUT + 2)
        # Once it was back and in use, nobody is turned away any more.
        late = {attempt.outcome for attempt in load.attempts if attempt.begun > last}
        self.assertEqual(late, {ACCEPTED})


class TwoDirectoriesTests(SiteTestCase):
    """The control file ldapserver names two; the first one fails."""

    async def start_with(self, first: str, **control: str) -> None:
        """The first is at the address given, the second is `second` and works."""
        self.user("joe")
        self.second = self.new_slapd("second")
        await self.second.start()
        self.server = self.new_server(
            f"{first}\n{self.second.address}",
            control={"ldaptimeout": str(TIMEOUT), **control},
        )
        await self.server.start()

    async def assert_accepted_within(self, limit: float) -> None:
        begun = time.monotonic()
        self.assertEqual(await self.refusal_of("joe"), ACCEPTED)
        self.assertLess(time.monotonic() - begun, limit)
        self.assertEqual(await self.refusal_of("joe", "wrong"), WRONG)

    async def test_the_first_is_not_running(self) -> None:
        await self.start_with(f"{HOST}:{unused_port()}")
        await self.assert_accepted_within(1.5)

    async def test_the_first_is_a_name_that_does_not_exist(self) -> None:
        await self.start_with("no-such-host.invalid")
        await self.assert_accepted_within(TIMEOUT + 1)

    async def test_the_first_accepts_and_is_silent(self) -> None:
        silent = socket.create_server((HOST, 0))
        self.addCleanup(silent.close)
        await self.start_with(f"{HOST}:{silent.getsockname()[1]}")
        await self.assert_accepted_within(TIMEOUT + 1)
        # It is known by now.
        await self.assert_accepted_within(1.5)

    async def test_the_first_hangs_while_in_use(self) -> None:
        first = await self.start_with_two()
        await self.assert_accepted_within(1.5)
        first.pause()
        await self.assert_accepted_within(TIMEOUT + 1)
        first.resume()

    async def test_the_first_crashes_while_in_use(self) -> None:
        first = await self.start_with_two()
        await self.assert_accepted_within(1.5)
        first.kill()
        await self.assert_accepted_within(1.5)

    async def test_the_first_hangs_while_passwords_are_proved_by_rebind(self) -> None:
        first = await self.start_with_two(ldaprebind="1")
        await self.assert_accepted_within(1.5)
        first.pause()
        await self.assert_accepted_within(TIMEOUT + 1)
        first.resume()

    async def test_when_the_second_fails_too_the_first_is_tried_again(self) -> None:
        first = await self.start_with_two()
        first.kill()
        await self.assert_accepted_within(1.5)
        await first.start()
        self.second.kill()
        await _assert_accepted_soon(self.server.port, "joe")

    async def test_both_hang(self) -> None:
        first = await self.start_with_two()
        first.pause()
        self.second.pause()
        begun = time.monotonic()
        self.assertEqual(await self.refusal_of("joe"), NO_DIRECTORY)
        self.assertLess(time.monotonic() - begun, 2 * TIMEOUT + 2)
        self.second.resume()
        await _assert_accepted_soon(self.server.port, "joe")

    async def start_with_two(self, **control: str) -> Slapd:
        """Both are running; gives the first."""
        self.user("joe")
        first = self.new_slapd("first")
        await first.start()
        self._entries.clear()
        await self.start_with(first.address, **control)
        return first


@attrs.frozen
class Attempt:
    """A login under load: its outcome, when it began (monotonic) and what it took, in seconds."""

    outcome: str
    begun: float
    seconds: float


class Load:
    """Threads that log in, and out, and in again."""

    def __init__(self, port: int, user: str, password: str, threads: int) -> None:
        self.attempts: list[Attempt] = []
        self._login: Callable[[], str] = lambda: refuse_or_accept(port, user, password)
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._log_in_and_out, daemon=True) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def count(self, outcome: str) -> int:
        return sum(attempt.outcome == outcome for attempt in self.attempts)

    async def wait_for_more(self, outcome: str, count: int) -> None:
        """Wait until so many more logins have ended like this."""
        enough = self.count(outcome) + count
        await wait_until(lambda: self.count(outcome) >= enough, 15, f"{count} logins: {outcome}")

    async def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            await deferToThread(thread.join)

    def _log_in_and_out(self) -> None:
        while not self._ending.is_set():
            begun = time.monotonic()
            try:
                outcome = self._login()
            except (OSError, EOFError) as error:
                outcome = f"{type(error).__name__}: {error}"
            self.attempts.append(Attempt(outcome, begun, time.monotonic() - begun))


async def _assert_accepted_soon(port: int, user: str) -> None:
    """A login succeeds before long; until then there is no directory, and nothing else is said."""
    deadline = time.monotonic() + SOON
    while (outcome := await deferToThread(refuse_or_accept, port, user, PASSWORD)) != ACCEPTED:
        assert outcome == NO_DIRECTORY, outcome
        assert time.monotonic() < deadline, outcome


def _talk_nonsense(listening: socket.socket, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
