"""What a reload needs is loaded at the start: later there may be no right to read the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.tls.support import identity

PROJECT = Path(__file__).resolve().parent.parent
LIMIT = 60.0

SCRIPT = """
import importlib.abc, json, sys
from pathlib import Path
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from qmailldap.control import ControlSnapshot
from qmailldap.options import Options
from qmailldap.service import makeService

control = Path(sys.argv[1])
options = Options()
options.parseOptions(["--control", str(control), "--workers", "1"])
generations = makeService(options, MemoryReactorClock()).getServiceNamed("generations")
generations.startService()


class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        print("imports", name)


sys.meta_path.insert(0, Nothing())
loaded = []
for files in json.loads(sys.stdin.read()):
    for name, text in files.items():
        (control / name).write_text(text + "\\n")
    read = ControlSnapshot.read(control)
    # As workers are given it.
    generations.prepare(ControlSnapshot.from_json(read.to_json())).addBoth(loaded.append)
    if isinstance(loaded[-1], Failure):
        print("fault", loaded[-1].getErrorMessage())
        loaded[-1].getTraceback()
    else:
        generations.commit()
print("loaded", loaded.count(None))
"""

CERTIFICATES = [identity("a.example.org", number=number).both.decode() for number in (0, 1)]
STATES = (
    {"ldapobjectclass": "qmailUser)(accountStatus=active"},
    {"ldapserver": "ldap1.example.org:389 [::1]:636", "ldapbasedn": "dc=example,dc=org"},
    {"ldaplogin": "cn=x", "ldappassword": "ü", "ldaptls": "1", "ldapcacert": CERTIFICATES[0]},
    {"cert.pem": CERTIFICATES[0], "requiretls": "1", "pop3trusted": "192.0.2.0/24\n::1"},
    {"cert.pem": CERTIFICATES[1], "ldapcleartext": "2", "pop3limits": "guesses:3"},
    {"ldapcluster": "1", "me": "a.example.org", "pop3routes": "b.example.org:192.0.2.3:110"},
    {"pop3clustertls": "2", "pop3clusterca": CERTIFICATES[0], "ldapclusterhosts": "c.example.org"},
    {"ldaprebind": "1", "ldapcleartext": "0", "ldaplocaldelivery": "1", "defaultquotasize": "1000"},
)
FAULTS = (
    {"ldapobjectclass": ")("},
    {"ldapobjectclass": "x", "cert.pem": "nothing"},
    {"cert.pem": CERTIFICATES[0], "ldapserver": "bücher.example"},
)


class ImportsTests(SynchronousTestCase):
    def test_nothing_is_imported_when_control_files_are_read_again(self) -> None:
        control = Path(self.mktemp()).absolute()
        control.mkdir()
        (control / "ldapserver").write_text("192.0.2.1\n")
        (control / "ldaplocaldelivery").write_text("0\n")
        finished = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(control)],
            cwd=PROJECT,
            input=json.dumps([*STATES, *FAULTS]),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        self.assertEqual(finished.returncode, 0, finished.stderr)
        said = finished.stdout.splitlines()
        self.assertEqual([line for line in said if line.startswith("imports")], [], said)
        self.assertEqual(sum(line.startswith("fault") for line in said), len(FAULTS), said)
        self.assertIn(f"loaded {len(STATES)}", said)
