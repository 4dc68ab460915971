"""The mail that the users of the demo find: one message of each kind a client must get right."""

from __future__ import annotations

from email.message import EmailMessage
from email.policy import default
from email.utils import make_msgid

__all__ = ["MAIL"]

_POLICY = default.clone(cte_type="8bit", utf8=False)


def _message(sender: str, recipient: str, subject: str, date: str, text: str) -> EmailMessage:
    message = EmailMessage(_POLICY)
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = subject
    message["Date"] = date
    message["Message-ID"] = make_msgid(domain="example.org")
    message.set_content(text, cte="7bit" if text.isascii() else "8bit")
    return message


def _plain() -> bytes:
    return _message(
        "Bob Builder <bob@example.org>",
        "Alice Liddell <alice@example.org>",
        "Tea on Thursday",
        "Thu, 05 Nov 2026 16:00:00 +0000",
        "Dear Alice,\n\nshall we say four o'clock? The Hatter brings the cups.\n\nBob\n",
    ).as_bytes()


def _attachment() -> bytes:
    message = _message(
        "The Printers <office@example.org>",
        "Alice Liddell <alice@example.org>",
        "Your invoice",
        "Fri, 06 Nov 2026 09:30:00 +0000",
        "The invoice is attached.\n",
    )
    rows = "item,pieces,price\n" + "".join(f"looking-glass {n},1,{n}.50\n" for n in range(1, 40))
    message.add_attachment(rows, subtype="csv", filename="invoice.csv")
    return message.as_bytes()


def _eight_bit() -> bytes:
    return _message(
        "Zoë <zoe@example.org>",
        "Bob Builder <bob@example.org>",
        "Grüße aus Köln",
        "Sat, 07 Nov 2026 20:15:00 +0000",
        "Lieber Bob,\n\nes ist kälter geworden, doch die Brücke steht.\n"
        "Żółw też pozdrawia.\n\nZoë\n",
    ).as_bytes()


def _leading_dots() -> bytes:
    return _message(
        "Alice Liddell <alice@example.org>",
        "Bob Builder <bob@example.org>",
        "A line that starts with a dot",
        "Sun, 08 Nov 2026 11:11:00 +0000",
        "POP3 ends a message with a dot on a line of its own, so\n.\nlike that, and\n.these\n"
        "..two lines must come through unharmed.\n",
    ).as_bytes()


MAIL = {
    "alice": (_plain(), _attachment()),
    "bob": (_eight_bit(), _leading_dots()),
}
