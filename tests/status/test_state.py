"""What each process knows, and what it comes to."""

from __future__ import annotations

import json
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.figures import Tally
from qmailldap.status.gathering import state_of
from qmailldap.status.state import LATEST, MOST_PLACES, Part, Place, Refused, State, plain

from .support import NOW, one, places, refused, state, texts

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def part(worker: int, **fields: Any) -> Part:
    return Part(**{"worker": worker, "started": NOW - 100, "loaded": NOW - 50, **fields})


def told(each: Part) -> Any:
    """As another process hears it."""
    return json.loads(json.dumps(each.to_json()))


def all_of(*parts: Any, workers: int = 2, tallies: int = 1) -> State:
    tally = Tally(lambda: NOW)
    tally.add("logins_total", "ok-local")
    tally.add("logins_total", "wrong-credentials", amount=2)
    tally.history.login()
    snapshots = [json.loads(json.dumps(tally.snapshot()))] * tallies
    return state_of(snapshots, parts, NOW, name="mail1", workers=workers)


class PartTests(SynchronousTestCase):
    @given(st.lists(places, max_size=3), texts, texts)
    def test_another_process_hears_what_was_told(
        self, servers: list[Place], reason: str, peer: str
    ) -> None:
        one = part(
            1,
            servers=servers,
            refusals=[Refused(time=NOW, reason=reason, peer=peer, user=reason)],
        )
        self.assertEqual(Part.from_json(told(one)), one)

    @given(_json)
    def test_what_is_no_part_is_none(self, given: Any) -> None:
        self.assertIsNone(Part.from_json(given))

    @given(st.sampled_from([field.name for field in attrs.fields(Part)]), _json)
    def test_a_part_with_anything_in_it_is_none_or_can_be_shown(
        self, field: str, given: Any
    ) -> None:
        heard = Part.from_json({**told(part(1)), field: given})
        if heard is not None:
            all_of(told(heard)).to_json()

    def test_a_part_with_a_number_that_nobody_could_show_is_none(self) -> None:
        place = {"name": "a", "up": True}
        for bad in ("NaN", "Infinity", "-1", "1e12", "true", "9" * 400, '"1"'):
            number = json.loads(bad)
            for fields in (
                {"started": number},
                {"loaded": number},
                {"members": [{**place, "failed": number}]},
                {"refusals": [{"time": number, "reason": "a", "peer": "b"}]},
            ):
                self.assertIsNone(Part.from_json({**told(part(1)), **fields}), (bad, fields))

    def test_one_process_that_tells_nonsense_is_as_one_that_tells_nothing(self) -> None:
        tally = Tally(lambda: NOW)
        tally.change("sessions", "local", by=2)
        good = tally.snapshot()
        bad = {**good, "gauges": [["sessions", ["local"], float("nan")]]}
        nonsense = {**told(part(2)), "loaded": float("inf")}
        found = state_of([good, bad], [told(part(1)), nonsense], NOW, name="mail1", workers=2)
        self.assertEqual((found.sessions.local, found.silent, found.loaded), (2, (2,), NOW - 50))

    def test_lists_are_bounded(self) -> None:
        many = part(
            1,
            servers=[Place(name=str(number), up=True) for number in range(MOST_PLACES + 5)],
            refusals=[refused()] * (LATEST + 5),
        )
        self.assertEqual((len(many.servers), len(many.refusals)), (MOST_PLACES, LATEST))

    @given(texts)
    def test_every_text_can_be_shown(self, text: str) -> None:
        shown = plain(text)
        self.assertTrue(shown.isprintable())
        self.assertLess(len(shown), 4000)
        shown.encode("utf-8")


class TogetherTests(SynchronousTestCase):
    def test_who_does_not_answer_is_named(self) -> None:
        found = all_of(told(part(1)), told(part(3)), workers=3)
        self.assertEqual(found.silent, (2,))
        self.assertEqual(found.troubles, ("Worker 2 does not answer.",))

    def test_a_server_by_itself_has_one_process(self) -> None:
        found = all_of(told(part(0)), workers=1)
        self.assertEqual((found.workers, found.silent, found.troubles), (1, (), ()))

    def test_figures_of_all_are_added_up(self) -> None:
        found = all_of(told(part(1)), told(part(2)), tallies=2)
        self.assertEqual((found.logins, found.refused), (2, 4))
        self.assertEqual(found.minutes[-1].logins, 2)

    def test_a_server_that_is_down_for_some_is_said_to_be(self) -> None:
        up = Place(name="a", up=True, latency=0.1, failed=NOW - 9, why="an older one")
        down = Place(name="a", up=False, latency=0.3, failed=NOW - 1, why="refused")
        (place,) = all_of(told(part(1, servers=[up])), told(part(2, servers=[down]))).servers
        self.assertEqual((place.word, place.why), ("up in 1 of 2", "refused"))
        self.assertAlmostEqual(place.latency or 0, 0.2)

    def test_refusals_are_the_latest_of_all(self) -> None:
        parts = [
            part(
                worker,
                refusals=[
                    attrs.evolve(refused(), time=NOW - 2 * age - worker) for age in range(LATEST)
                ],
            )
            for worker in (1, 2)
        ]
        times = [each.time for each in all_of(*map(told, parts)).refusals]
        self.assertEqual(times, [NOW - 1 - age for age in range(LATEST)])

    def test_no_answer_at_all_is_shown_as_such(self) -> None:
        found = all_of(tallies=0)
        self.assertEqual((found.silent, found.servers, found.logins), ((1, 2), (), 0))

    def test_troubles_are_told_in_sentences(self) -> None:
        down = one(up=False, failed=NOW, why="refused")
        found = state(servers=(one("ldap1:389"), down), members=(attrs.evolve(down, name="m"),))
        self.assertEqual(
            found.troubles,
            ("The directory server ldap2:389 is down.", "The member m is down."),
        )
        self.assertEqual(
            state(servers=(down,)).troubles, ("No directory server answers: nobody can log in.",)
        )

    def test_many_members_that_are_down_are_one_trouble(self) -> None:
        down = one(up=False, failed=NOW, why="refused")
        lost = [attrs.evolve(down, name=f"m{number}") for number in range(6)]
        found = state(members=(*lost, one("m9")))
        self.assertEqual(found.troubles, ("6 members of 7 are down.",))

    def test_a_command_reads_what_the_server_has_told(self) -> None:
        found = state(members=(one(sessions=3),), refusals=(refused(user="joe"),))
        self.assertEqual(State.from_json(json.loads(json.dumps(found.to_json()))), found)

    @given(_json)
    def test_what_is_no_state_is_an_error(self, given: Any) -> None:
        with self.assertRaises(ValueError):
            State.from_json(given)
