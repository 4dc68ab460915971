"""Writes the completion of bash and zsh beside this file, from the options of the programs.

    python contrib/completion/generate.py           writes bash/ and zsh/
    make completion                                 does so

A test compares the files with what this would write. For zsh, twistd completes its plugins by
itself (_twisted, of zsh); for bash, the options of qmailldap-pop3 are completed here, and those of
twistd that docs/administration.md names.

Why no library does it: argcomplete has Python started for every Tab, which takes these programs a
third of a second, and knows argparse only; shtab, too, knows argparse only, and the shell code that
it writes is its own, under another licence.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.python import usage
from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from qmailldap.commands import make_parser  # noqa: E402
from qmailldap.options import NAME, Options  # noqa: E402
from qmailldap.passwords.making import TYPES  # noqa: E402

OF_TWISTD = ("nodaemon", "logfile", "pidfile", "python", "rundir", "syslog", "umask", "help")
"""Others come and go with versions of Twisted."""

_OF_TWISTD_VALUES = {"logfile": "FILE", "python": "FILE", "rundir": "DIR"}

FILES, DIRECTORIES, USERS, GROUPS, WORDS, ANYTHING = range(6)
"""What the value of an option may be."""

_OF_METAVAR = {"DIR": DIRECTORIES, "FILE": FILES, "PATH": FILES}
_WORDS = {"TYPE": ("all", *TYPES)}
"""Those that values of such names may be."""

_OF_COMPLETER = (
    (usage.CompleteFiles, FILES),
    (usage.CompleteDirs, DIRECTORIES),
    (usage.CompleteUsernames, USERS),
    (usage.CompleteGroups, GROUPS),
    (usage.CompleteList, WORDS),
)

_BASH = {FILES: "-f", DIRECTORIES: "-d", USERS: "-u", GROUPS: "-g"}
_ZSH = {FILES: "_files", DIRECTORIES: "_directories", USERS: "_users", GROUPS: "_groups"}


@dataclass(frozen=True)
class Option:
    """``value`` is None where it has none; ``words`` are those that it may be."""

    names: tuple[str, ...]
    help: str
    value: int | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """What a word of the command line opens: its options, and the words that may follow."""

    name: str
    help: str
    options: tuple[Option, ...]
    commands: tuple[Command, ...] = ()


def completions() -> dict[str, str]:
    """The text of each file, by its path from here."""
    # What would stand as the default of options.
    os.environ.pop("QMAILLDAP_CONTROL", None)
    qmailldap = of_argparse("qmailldap", "", make_parser())
    twistd = Command(
        "twistd",
        "",
        tuple(of_twisted(ServerOptions(), OF_TWISTD)),
        (Command(NAME, "POP3 server", tuple(of_twisted(Options()))),),
    )
    return {
        "bash/qmailldap": bash(qmailldap, "qmailldap"),
        # Debian calls it twistd3. Of its other plugins nothing is known here.
        "bash/twistd": bash(twistd, "-o bashdefault -o default twistd twistd3"),
        "zsh/_qmailldap": zsh(qmailldap),
    }


def of_argparse(name: str, text: str, parser: argparse.ArgumentParser) -> Command:
    options, commands = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            commands = [of_argparse(each, helps[each], p) for each, p in action.choices.items()]
        elif action.option_strings:
            metavar = action.metavar if isinstance(action.metavar, str) else ""
            words = tuple(map(str, action.choices or _WORDS.get(metavar, ())))
            value = None
            if action.nargs != 0:
                value = WORDS if words else _OF_METAVAR.get(metavar, ANYTHING)
            told = re.sub(r"\(default: %\(default\)s\)", "", action.help or "")
            options.append(Option(tuple(action.option_strings), told, value, words))
    return Command(name, text, tuple(options), tuple(commands))


def of_twisted(options: Any, names: Sequence[str] = ()) -> Iterable[Option]:
    """Those of long names, all by default. A short one is written with a blank before its value."""
    actions = options.compData.optActions if options.compData else {}
    for long in options.longOpt:
        name = long.rstrip("=")
        if names and name not in names:
            continue
        short = [each for each, of in options.synonyms.items() if of == name and len(each) == 1]
        given = (f"--{name}", *(f"-{each}" for each in short if each in options.shortOpt))
        value, words = None, ()
        if long.endswith("="):
            completer: Any = actions.get(name)
            kinds = [kind for of, kind in _OF_COMPLETER if type(completer) is of]
            told = _OF_METAVAR.get(_OF_TWISTD_VALUES.get(name, ""), ANYTHING)
            value = kinds[0] if kinds else told
            words = tuple(completer._items) if value == WORDS else ()
        yield Option(given, options.docs.get(name) or "", value, words)


def bash(program: Command, complete: str) -> str:
    """Words that bash has broken at "=" are put together again."""
    function = f"_{program.name}"
    lines = [
        f"# Completion of {program.name} for bash. Written by contrib/completion/generate.py.",
        "",
        f"{function}() {{",
        "  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}",
        "  local command= words= index",
        "  if [[ $current == '=' ]]; then",
        "    current=",
        "  elif [[ $before == '=' ]]; then",
        "    before=${COMP_WORDS[COMP_CWORD-2]}",
        "  fi",
        "  for ((index = 1; index < COMP_CWORD; index++)); do",
        "    case ${COMP_WORDS[index]} in",
        f"      {'|'.join(each.name for each in program.commands)})",
        "        command=${COMP_WORDS[index]}",
        "        break",
        "        ;;",
        "    esac",
        "  done",
        "  COMPREPLY=()",
        "  case $command,$before in",
    ]
    for command in (program, *program.commands):
        lines += _bash_values("" if command is program else command.name, command.options)
    lines += ["  esac", "  case $command in"]
    for command in (program, *program.commands):
        words = [each.name for each in command.commands]
        words += [name for option in command.options for name in option.names]
        name = "''" if command is program else command.name
        lines += [f"    {name})", f"      words='{' '.join(words)}'", "      ;;"]
    lines += [
        "  esac",
        '  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")',
        "}",
        "",
        f"complete -F {function} {complete}",
    ]
    return "\n".join(lines) + "\n"


def _bash_values(command: str, options: Iterable[Option]) -> Iterable[str]:
    """The branches for what stands behind an option, those alike as one."""
    branches: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for option in options:
        if option.value is not None:
            names = [f"{command},{name}" for name in option.names]
            branches.setdefault((option.value, option.words), []).extend(names)
    for (value, words), names in branches.items():
        yield f"    {'|'.join(names)})"
        if value != ANYTHING:
            what = f"-W '{' '.join(words)}'" if value == WORDS else _BASH[value]
            yield f'      mapfile -t COMPREPLY < <(compgen {what} -- "$current")'
        if value in (FILES, DIRECTORIES):
            yield "      compopt -o filenames 2>/dev/null"
        yield "      return"
        yield "      ;;"


def zsh(program: Command) -> str:
    lines = [
        f"#compdef {program.name}",
        f"# Completion of {program.name} for zsh. Written by contrib/completion/generate.py.",
        "",
        "local -a line commands",
        "local curcontext=$curcontext state",
        "",
        "commands=(",
        *(f"  {_quoted(f'{each.name}:{each.help}')}" for each in program.commands),
        ")",
        "",
        "_arguments -C \\",
        *_zsh_options(program.options),
        "  '1:command:{_describe command commands}' \\",
        "  '*::argument:->argument' && return",
        "",
        "case $line[1] in",
    ]
    for command in program.commands:
        lines += [f"  {command.name})", "    _arguments \\"]
        lines += [f"    {line}" for line in _zsh_options(command.options)]
        lines += ["      '*: :' && return", "    ;;"]
    return "\n".join([*lines, "esac"]) + "\n"


def _zsh_options(options: Iterable[Option]) -> Iterable[str]:
    for option in options:
        text = " ".join(option.help.replace("%%", "%").split())
        text = re.sub(r"([\[\]:\\])", r"\\\1", text)
        value = ""
        if option.value is not None:
            words = f"({' '.join(option.words)})"
            value = f":value:{words if option.words else _ZSH.get(option.value, '')}"
        for name in option.names:
            others = f"({' '.join(option.names)})" if len(option.names) > 1 else ""
            long = "=" if name.startswith("--") and value else ""
            yield f"  {_quoted(f'{others}{name}{long}[{text}]{value}')} \\"


def _quoted(text: str) -> str:
    """For zsh, whose own quoting within quotes is ''' as in all shells."""
    return "'" + text.replace("'", "'\\''") + "'"


if __name__ == "__main__":
    for name, text in completions().items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_text(text, "utf-8")
