"""Any octets, in any pieces, at any moment, whatever else goes wrong: nothing is left over.

`fuzz.world` says what must not be left.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from fuzz import targets
from fuzz.__main__ import main
from fuzz.actions import ACTIONS, MOST_ACTIONS, WORDS, Action, decode, encode
from fuzz.leftovers import Leftovers
from fuzz.scenarios import SCENARIOS
from fuzz.site import CLEAR_PASSWORD, PASSWORD, Mail, Options
from fuzz.targets import TARGETS
from fuzz.world import ROOMS, World, play
from qmailldap.pop3.lines import LineBuffer

_LOG_IN = (b"USER joe\r\n", b"PASS correct-horse\r\n")


def word(line: bytes) -> Action:
    return Action("word", bytes([WORDS.index(line)]))


_octets = st.binary(max_size=60) | st.sampled_from(WORDS).map(lambda line: line[:200])
_values = {
    0: st.just(b""),
    1: st.binary(min_size=1, max_size=1),
    2: st.binary(min_size=2, max_size=2),
}
_any_action = st.sampled_from([*ACTIONS]).flatmap(
    lambda name: st.builds(Action, st.just(name), _values.get(ACTIONS[name], _octets))
)
_words = st.sampled_from(WORDS).map(word)
_time = st.sampled_from(["turn", "settle"]).map(Action)
_options = st.builds(
    Options,
    tls=st.booleans(),
    haproxy=st.booleans(),
    requires_tls=st.booleans(),
    cleartext=st.integers(0, 2),
)
_actions = st.lists(_words | _any_action | _time, max_size=MOST_ACTIONS // 2)


def _examples(count: int) -> settings:
    """So many of them, however long one takes: to look for leftovers takes longer than to play."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count, deadline=None, suppress_health_check=slow)


@st.composite
def _pieces(draw: st.DrawFn) -> list[Action]:
    """Whole lines of a session, cut anywhere, with anything between the cuts."""
    stream = b"".join(draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=12)))
    stream = draw(st.sampled_from([b"", b"".join(_LOG_IN)])) + stream
    actions = []
    while stream:
        cut = draw(st.integers(1, min(len(stream), 255)))
        actions += [Action("say", stream[:cut]), *draw(st.lists(_any_action | _time, max_size=2))]
        stream = stream[cut:]
    return actions


class PlayTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.mail = Mail()
        self.addCleanup(self.mail.remove)
        self.leftovers = Leftovers((PASSWORD, CLEAR_PASSWORD), ROOMS)
        self.addCleanup(self.leftovers.stop)

    def play(self, actions: list[Action], options: Options = Options()) -> None:  # noqa: B008
        play(actions, self.mail, self.leftovers, options)


class FuzzTests(PlayTestCase):
    @_examples(100)
    @given(_actions, _options)
    def test_any_actions_in_any_order(self, actions: list[Action], options: Options) -> None:
        self.play(actions, options)

    @_examples(100)
    @given(_actions, _options)
    def test_behind_a_login(self, actions: list[Action], options: Options) -> None:
        self.play([*map(word, _LOG_IN), Action("settle"), *actions], options)

    @_examples(100)
    @given(_pieces(), _options)
    def test_lines_in_any_pieces(self, actions: list[Action], options: Options) -> None:
        self.play(actions, options)

    @_examples(50)
    @given(_actions)
    def test_within_tls_that_was_begun_by_stls(self, actions: list[Action]) -> None:
        begun = [word(b"STLS\r\n"), Action("settle"), Action("tls"), Action("settle")]
        self.play([*begun, *actions])

    @given(st.lists(_any_action, max_size=MOST_ACTIONS))
    def test_actions_are_octets_and_octets_are_actions(self, actions: list[Action]) -> None:
        self.assertEqual(decode(encode(actions)), actions)


class WorldTests(PlayTestCase):
    """That something is found where there is something, and that sessions get far enough for it."""

    def test_sessions_go_as_far_as_they_should(self) -> None:
        for name, scenario in SCENARIOS.items():
            self.play(scenario.actions, scenario.options)
            lines = map(formatEvent, self.leftovers.events)
            self.assertTrue(any(scenario.seen in line for line in lines), f"{name}: {[*lines]}")

    def test_a_deferred_that_waits_is_found(self) -> None:
        self.leftovers.begin()
        waiting: Deferred[None] = Deferred()
        with self.assertRaisesRegex(AssertionError, "1 left: <Deferred"):
            self.leftovers.assert_none()
        waiting.callback(None)
        self.leftovers.assert_none()

    def test_a_deferred_that_only_garbage_waits_for_is_found(self) -> None:
        async def wait() -> None:
            await Deferred()

        self.leftovers.begin()
        waiting = Deferred.fromCoroutine(wait())
        cycle: list[object] = [waiting]
        waiting.addCallback(cycle.append)
        del waiting, cycle
        with self.assertRaisesRegex(AssertionError, "2 left: <Deferred"):
            self.leftovers.assert_none()

    def test_an_object_of_a_room_is_found(self) -> None:
        self.leftovers.begin()
        left = [LineBuffer()]
        with self.assertRaisesRegex(AssertionError, "1 left: .*LineBuffer"):
            self.leftovers.assert_none()
        left.clear()
        self.leftovers.assert_none()

    def test_an_open_file_is_found(self) -> None:
        self.leftovers.begin()
        with open("/dev/null"), self.assertRaisesRegex(AssertionError, "/dev/null"):
            self.leftovers.assert_none()

    def test_what_must_not_be_in_the_log_is_found(self) -> None:
        # Not one of the package, which lets none of the first two pass.
        log = Logger(namespace="qmailldap.pop3")
        for line in ("a\nb", "\x1b[2J", "\xe9", "correct-horse", "detail=" + "x" * 4000):
            self.leftovers.begin()
            log.warn("{line}", line=line)
            with self.assertRaises(AssertionError, msg=line):
                self.leftovers.assert_none()

    def test_a_failure_that_nobody_handles_is_found(self) -> None:
        self.leftovers.begin()
        fail(ValueError("nobody"))
        with self.assertRaisesRegex(AssertionError, "nobody"):
            self.leftovers.assert_none()
        self.flushLoggedErrors(ValueError)

    def test_a_connection_without_an_end_is_found(self) -> None:
        world = World(Options(), self.mail)
        world.do(Action("connect"))
        world.reactor.callLater(2 * 86_400.0, lambda: None)
        with self.assertRaisesRegex(AssertionError, "still to be called"):
            world.end()


class TargetTests(SynchronousTestCase):
    """What atheris is to search in, which must at least take what the search begins with."""

    def test_each_takes_its_seeds(self) -> None:
        for name, target in TARGETS.items():
            run, end = target.prepare()
            seeds = [*target.seeds()]
            try:
                for octets in seeds:
                    run(octets)
            finally:
                end()
            self.assertEqual(len(seeds), len({*seeds}), name)

    @_examples(100)
    @given(st.sampled_from(sorted({*TARGETS} - {"session"})), st.data())
    def test_each_takes_any_octets(self, name: str, data: st.DataObject) -> None:
        seeds = [*TARGETS[name].seeds()]
        octets = data.draw(st.sampled_from(seeds) | st.binary(max_size=200))
        cut = data.draw(st.integers(0, len(octets)))
        run, end = TARGETS[name].prepare()
        try:
            run(octets[:cut] + data.draw(st.binary(max_size=8)) + octets[cut:])
        finally:
            end()


class CommandTests(SynchronousTestCase):
    """``python -m fuzz``, but for the search itself."""

    def setUp(self) -> None:
        self.output = io.StringIO()
        self.patch(sys, "stdout", self.output)
        self.patch(sys, "stderr", self.output)

    def test_without_atheris_it_says_what_is_missing(self) -> None:
        self.patch(importlib.util, "find_spec", lambda name: None)
        self.assertEqual(main(["--seconds=1"]), 1)
        self.assertIn("make fuzz needs atheris", self.output.getvalue())

    def test_what_was_found_is_played_again(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(next(TARGETS["session"].seeds()))
        self.assertEqual(main(["session", "--replay", str(path)]), 0)
        self.assertIn("  word b'", self.output.getvalue())
        self.patch(targets, "play", lambda *_: 1 / 0)
        with self.assertRaises(ZeroDivisionError):
            main(["session", "--replay", str(path)])

    def test_a_target_that_there_is_not_is_refused_with_those_there_are(self) -> None:
        with self.assertRaises(SystemExit):
            main(["x", "--replay", "/dev/null"])
        self.assertIn("proxy-header", self.output.getvalue())
