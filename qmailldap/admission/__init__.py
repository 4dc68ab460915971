"""Who is let in, and how soon: connections, sessions of one user, and those who guess.

What is kept here is bounded, whoever comes. Nothing may enter that knows how a session is spoken,
or how a password is proved.
"""

from qmailldap.admission.admission import Admission
from qmailldap.admission.connections import Connections, Place
from qmailldap.admission.guesses import Guesses
from qmailldap.admission.scores import BadScores, ScoreTable
from qmailldap.admission.sessions import Sessions
from qmailldap.admission.shared_counts import BadCounts, SharedCounts

__all__ = [
    "Admission",
    "BadCounts",
    "BadScores",
    "Connections",
    "Guesses",
    "Place",
    "ScoreTable",
    "Sessions",
    "SharedCounts",
]
