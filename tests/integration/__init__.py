"""The server as its users meet it: real twistd, real slapd, real mail programs, real files."""

import os

# Many hundred processes are started: each would compile the package once more for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
