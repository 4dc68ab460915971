"""What is counted of a server: which figures there are, and their values in one process.

Any room may count; how the figures are shown is the business of `qmailldap.status`.
"""

from qmailldap.figures.history import LAST_MINUTES, Minute
from qmailldap.figures.snapshots import Together, fold, together
from qmailldap.figures.table import FIGURES, Figure, figure
from qmailldap.figures.tally import Tally

__all__ = [
    "FIGURES",
    "LAST_MINUTES",
    "Figure",
    "Minute",
    "Tally",
    "Together",
    "figure",
    "fold",
    "together",
]
