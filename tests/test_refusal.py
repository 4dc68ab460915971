"""The table of refusals against the one in reference.md."""

from __future__ import annotations

from twisted.cred.error import UnauthorizedLogin
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.refusal import LoginRefused, Refusal


class RefusalTests(SynchronousTestCase):
    def test_exit_codes_and_texts_are_those_of_the_original(self) -> None:
        self.assertEqual(
            {
                refusal.outcome.exit_code: refusal.outcome.text
                for refusal in Refusal
                # The original does not tell it from a host that cannot be reached.
                if refusal is not Refusal.MEMBER_REFUSED and not refusal.is_of_a_listener
            },
            {
                1: "error in server configuration",
                2: "unable to contact authorization server",
                3: "authorization failed",
                4: "account disabled",
                5: "mailhost is unreachable",
                6: "mailbox is corrupted",
                61: "mailbox could not be created",
                62: "the users mailbox does not exist",
                7: "unable to start subprogram",
                8: "out of memory",
                25: "user record incorrect",
                111: "temporary error",
            },
        )

    def test_response_codes_are_registered_ones(self) -> None:
        for refusal in Refusal:
            self.assertIn(refusal.outcome.code, {"AUTH", "IN-USE", "SYS/TEMP", "SYS/PERM"})

    def test_stock_twisted_knows_it_as_a_failed_login(self) -> None:
        self.assertIsInstance(LoginRefused(Refusal.TEMPORARY), UnauthorizedLogin)

    def test_what_a_client_may_be_told_can_differ_from_the_reason(self) -> None:
        refused = LoginRefused(Refusal.RECORD_INCORRECT, "no hash", shown=Refusal.WRONG_CREDENTIALS)
        self.assertEqual(str(refused), "authorization failed")
        self.assertIn("RECORD_INCORRECT", repr(refused))
