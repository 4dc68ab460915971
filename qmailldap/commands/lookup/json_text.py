"""The findings of a lookup for a script: one object whose keys are always there.

Null stands for what was not come to. Documented in qmailldap(8); a key may be added, none changes.
"""

from __future__ import annotations

import json
import os
from typing import Any

import attrs

from qmailldap.commands.lookup.findings import (
    Attribute,
    Findings,
    Mailbox,
    Password,
    Search,
    as_text,
)
from qmailldap.maildir.inspection import Seen

__all__ = ["as_json"]


def as_json(found: Findings) -> str:
    """ASCII, in several lines."""
    mailbox = found.mailbox
    whole = {
        "asked": {"by": found.asked.by, "value": as_text(os.fsencode(found.asked.value))},
        "control": as_text(os.fsencode(found.asked.control)),
        "login": found.login,
        "searches": [_search(search) for search in found.searches],
        "known_by": found.known_by,
        "passwd": found.passwd,
        "dn": found.dn,
        "attributes": {each.name: _attribute(each) for each in found.attributes},
        "password": None if found.password is None else _password(found.password),
        "mail": None if found.mail is None else attrs.asdict(found.mail),
        "account": None if mailbox is None else _account(mailbox),
        "mailbox": None if mailbox is None else _mailbox(mailbox),
        "notes": found.notes,
        "verdict": _verdict(found),
    }
    return json.dumps(whole, indent=2)


def _search(search: Search) -> dict[str, Any]:
    facts = attrs.asdict(search)
    seconds = facts.pop("seconds")
    facts["milliseconds"] = None if seconds is None else round(seconds * 1000)
    return facts


def _attribute(attribute: Attribute) -> dict[str, Any]:
    facts = attrs.asdict(attribute)
    del facts["name"]
    return facts


def _password(password: Password) -> dict[str, Any]:
    return attrs.asdict(password)


def _account(mailbox: Mailbox) -> dict[str, Any]:
    return {
        "uid": mailbox.uid,
        "gid": mailbox.gid,
        "home": mailbox.home,
        "mailbox": mailbox.mailbox,
        "quota": {"octets": mailbox.quota.size, "messages": mailbox.quota.count},
        "max_message_size": mailbox.max_message_size,
    }


def _mailbox(mailbox: Mailbox) -> dict[str, Any]:
    found = mailbox.inspection
    facts: dict[str, Any] = {
        "looked_as": attrs.asdict(mailbox.looked),
        "problem": mailbox.problem,
        "dirmaker": mailbox.dirmaker,
        "home": None,
        "mailbox": None,
        "folders": [],
        "by_dot_qmail": None,
        "makes_home": None,
        "makes": [],
        "messages": None,
        "use": None,
        "maildirsize": None,
    }
    if found is None:
        return facts
    facts.update(
        home=_seen(found.home),
        mailbox=_seen(found.mailbox),
        folders=[_seen(folder) for folder in found.folders],
        by_dot_qmail=found.by_dot_qmail,
        makes_home=found.makes_home,
        makes=found.makes,
    )
    if found.messages is not None:
        facts["messages"] = found.messages._asdict()
    if found.quota is not None:
        use = found.quota
        facts["use"] = {"octets": use.octets, "messages": use.messages}
        facts["maildirsize"] = {
            "definition": use.definition,
            "octets": use.stored_octets,
            "messages": use.stored_messages,
            "problem": use.problem,
        }
    return facts


def _seen(seen: Seen) -> dict[str, Any]:
    exists = seen.kind in ("directory", "file", "other")
    return {
        "path": seen.path,
        "kind": seen.kind,
        "mode": f"{seen.mode:04o}" if exists else None,
        "uid": seen.uid if exists else None,
        "gid": seen.gid if exists else None,
        "link": seen.link or None,
        "problem": seen.problem,
    }


def _verdict(found: Findings) -> dict[str, Any]:
    verdict = found.verdict
    refused = verdict.refused
    told = None if refused is None or found.finds_nobody else refused.answer.decode("ascii")
    return {
        "let_in": refused is None,
        "exit_code": verdict.exit_code,
        "refusal": None if refused is None else refused.refusal.name,
        "text": None if refused is None else refused.refusal.outcome.text,
        "client_is_told": told,
        "reason": verdict.reason,
        "password_proved": verdict.proved,
        "complete": verdict.is_complete,
        "condition": verdict.condition,
        "forwarded_to": verdict.forwarded_to or None,
    }
