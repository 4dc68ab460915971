"""What a server takes as it is although somebody most likely means something else.

It starts with all of this and does not mention it. What is doubtful comes back as lines for people;
no line of a file is shown that the server does not use, and nothing of a secret.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from qmailldap.control.facts import ControlError
from qmailldap.control.files import ControlFile
from qmailldap.control.folder import Folder

__all__ = ["doubts"]

_BLANKS = b" \t"


def doubts(directory: str, file: ControlFile, value: Any) -> Iterator[str]:
    """What is doubtful about a file without errors; ``value`` is None where it gives none."""
    if file.name == "ldapbasedn" and value is None:
        yield "is missing or empty: the search base is the root of the directory"
    if file.kind not in ("list", "file"):
        yield from _about_lines(directory, file)
    if file.name == "ldapmessagestore" and value is not None:
        yield from _about_directory(value)


def _about_lines(directory: str, file: ControlFile) -> Iterator[str]:
    content = None
    # It has been read, but somebody may have changed it since.
    with suppress(ControlError):
        content = Folder(directory).content(file.name)
    if content is None:
        return
    first, *others = (line.strip(_BLANKS + b"\r") for line in content.split(b"\n"))
    if file.kind == "line" and first and content[:1] in (b" ", b"\t"):
        yield "begins with a blank"
    if any(line and not line.startswith(b"#") for line in others):
        empty = "" if first else ", which is empty"
        yield f"only the first line is read{empty}"


def _about_directory(path: str) -> Iterator[str]:
    try:
        os.stat(path.encode())  # which ends in a slash, and so is a directory, or none
    except PermissionError:
        return  # Who looks is not root, as the server is.
    except OSError as error:
        yield f"{path!r} cannot be used: {error.strerror}"
