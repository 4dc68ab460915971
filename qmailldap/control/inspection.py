"""The whole control directory for a person: every file, what is in force, and all that is wrong.

The reading is that of the server; here its faults are gathered, and others are looked for that keep
no server from starting. What only the rooms above can judge is added by whoever calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from qmailldap.control.doubts import doubts
from qmailldap.control.facts import Control, ControlError, POP3Limits, Route
from qmailldap.control.files import FILES, ControlFile, Reading, read_files
from qmailldap.control.rights import directory_rights, file_rights, key_rights, program_rights
from qmailldap.control.strangers import Stranger, strangers

__all__ = [
    "FileReport",
    "Inspection",
    "inspect_control",
    "look_as_root",
    "with_faults_of",
    "with_warnings",
]

_DENIED = "; the server is started as root, so look at it as root"


@attrs.frozen(kw_only=True)
class FileReport:
    """A control file, and what the directory makes of it.

    ``is_set`` says that the file gives the value in force, which is ``value``, as lines for people:
    none for a secret. ``is_used`` is False where another file stands in its place.
    """

    file: ControlFile
    path: str
    is_set: bool = False
    is_used: bool = True
    value: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Inspection:
    """The directory: its files in the order of `FILES`, and what looks like one and is none.

    ``errors`` and ``warnings`` are those of the directory itself. ``control`` has the default for
    each file with an error, and is None where there is no such directory.
    """

    directory: str
    files: tuple[FileReport, ...] = ()
    strangers: tuple[Stranger, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    control: Control | None = None

    @property
    def all_errors(self) -> tuple[str, ...]:
        """Whatever keeps a server from starting."""
        return (*self.errors, *(error for report in self.files for error in report.errors))

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """Whatever else should be looked at."""
        others = (warning for report in self.files for warning in report.warnings)
        return (*self.warnings, *others, *(stranger.problem for stranger in self.strangers))


def inspect_control(directory: str | os.PathLike[str]) -> Inspection:
    """Look at everything in the directory. Whatever is in it, nothing is raised.

    All paths that come back are absolute.
    """
    try:
        reading = read_files(_absolute(directory))
    except ControlError as error:
        problem = f"{error.problem}{look_as_root(error.file)}"
        return Inspection(directory=error.file, errors=(problem,))
    path = reading.directory
    warnings = list(directory_rights(path))
    foreign: tuple[Stranger, ...] = ()
    try:
        foreign = tuple(strangers(path))
    except OSError as error:
        warnings.append(f"cannot be listed, to look for misspelt names: {error.strerror}")
    return Inspection(
        directory=path,
        files=tuple(_report(path, file, reading) for file in FILES),
        strangers=foreign,
        warnings=tuple(warnings),
        control=reading.control(),
    )


def with_faults_of(inspection: Inspection, use: Callable[[Control], object]) -> Inspection:
    """The same with the errors that ``use`` raises as `ControlError`: one a file at most.

    After each, ``use`` is called again with the default for the file at fault.
    """
    control = inspection.control
    fields = attrs.fields_dict(Control)
    found: set[str] = set()
    while control is not None:
        try:
            use(control)
        except ControlError as error:
            if error.file in found:
                break
            found.add(error.file)
            problem = f"{error.problem}{look_as_root(error.file)}"
            inspection = _with_error(inspection, ControlError(error.file, problem))
            for report in inspection.files:
                if report.path == error.file:
                    default: dict[str, Any] = {report.file.field: fields[report.file.field].default}
                    control = attrs.evolve(control, **default)
        else:
            break
    return inspection


def with_warnings(inspection: Inspection, name: str, warnings: Iterable[str]) -> Inspection:
    """The same with further lines about the file ``name``."""
    files = tuple(
        attrs.evolve(report, warnings=(*report.warnings, *warnings))
        if report.file.name == name
        else report
        for report in inspection.files
    )
    return attrs.evolve(inspection, files=files)


def _with_error(inspection: Inspection, error: ControlError) -> Inspection:
    files = tuple(
        attrs.evolve(report, errors=(*report.errors, error.problem), value=(), is_set=False)
        if report.path == error.file
        else report
        for report in inspection.files
    )
    if files == inspection.files:
        return attrs.evolve(inspection, errors=(*inspection.errors, str(error)))
    return attrs.evolve(inspection, files=files)


def _report(directory: str, file: ControlFile, reading: Reading) -> FileReport:
    path = os.path.join(directory, file.name)
    faults = [fault for fault in reading.faults if fault.name == file.name]
    errors = [fault.problem for fault in faults if fault.is_error]
    value = reading.values.get(file.name)
    is_used = file.unless not in reading.values
    if errors:
        errors[0] += look_as_root(path)
    return FileReport(
        file=file,
        path=path,
        is_set=value is not None,
        is_used=is_used,
        value=() if file.secret or errors else tuple(_shown(value)),
        errors=tuple(errors),
        warnings=(
            *(fault.problem for fault in faults if not fault.is_error),
            *_rights(directory, file, path, value),
            *(() if errors or not is_used else doubts(directory, file, value)),
        ),
    )


def _rights(directory: str, file: ControlFile, path: str, value: Any) -> Iterator[str]:
    look = key_rights if file.name == "cert.pem" else file_rights
    yield from look(path, directory)
    if file.name == "dirmaker" and value is not None:
        yield from program_rights(value, directory)


def _absolute(directory: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Without resolving "..", as the parent of where a link leads is another directory."""
    if not os.fspath(directory):
        return directory  # which is none, and so the server says
    with suppress(OSError):
        return Path(directory).absolute()
    return directory


def _shown(value: Any) -> Iterator[str]:
    if isinstance(value, tuple):
        for each in value:
            yield from _shown(each)
    elif isinstance(value, Route):
        host = f"[{value.host}]" if ":" in value.host else value.host
        yield f"{value.pattern}:{host}:{value.port}"
    elif isinstance(value, POP3Limits):
        numbers = attrs.asdict(value)
        usual = attrs.asdict(POP3Limits())
        # Where the file repeats the defaults, all of them are what it says.
        changed = {name: numbers[name] for name in numbers if numbers[name] != usual[name]}
        for name, number in (changed or numbers).items():
            yield f"{name.replace('_', '-')}:{number}"
    elif isinstance(value, bool):
        yield str(int(value))
    elif value is not None:
        yield str(value)


def look_as_root(path: str) -> str:
    """What follows a problem of the file where only our own rights are in the way; else empty."""
    return _DENIED if _is_denied(path) else ""


def _is_denied(path: str) -> bool:
    """Whether only our own rights are in the way; root has no better ones."""
    if os.geteuid() == 0:
        return False
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        return True
    except OSError:
        return False
    return False
