"""Numbers and times as people read them, on the page and in a terminal alike."""

from __future__ import annotations

from datetime import datetime

__all__ = ["clock_time", "count", "latency", "moment", "octets", "rate", "span", "time_of_day"]

_UNITS = ("octets", "kB", "MB", "GB", "TB", "PB")
_SPANS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def count(number: int) -> str:
    """With a narrow space between thousands: 12 345."""
    return f"{number:,}".replace(",", "\u202f")


def octets(number: int) -> str:
    """To three digits, by powers of 1000."""
    amount, unit = float(number), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    if not unit:
        return f"{number} {_UNITS[0]}"
    return f"{amount:.{max(0, 3 - len(str(int(amount))))}f} {_UNITS[unit]}"


def latency(seconds: float) -> str:
    """Of one answer."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.{1 if seconds < 0.01 else 0}f} ms"


def rate(number: float) -> str:
    """So many a minute."""
    return count(round(number)) if number >= 10 or not number else f"{number:.1f}"


def span(seconds: float) -> str:
    """How long something has lasted, by its two largest units: 3 d 4 h."""
    left = max(0, int(seconds))
    shown: list[str] = []
    for size, unit in _SPANS:
        number, left = divmod(left, size)
        if number or shown or size == 1:
            shown.append(f"{number} {unit}")
    return " ".join(each for each in shown[:2] if not each.startswith("0 ")) or "0 s"


def moment(seconds: float, now: float) -> str:
    """A time in the zone of the host: with its date, unless that is today's."""
    then = datetime.fromtimestamp(seconds).astimezone()
    if then.date() == datetime.fromtimestamp(now).astimezone().date():
        return f"{then:%H:%M:%S}"
    return f"{then:%Y-%m-%d %H:%M}"


def clock_time(seconds: float) -> str:
    """A time of today with the zone of the host, which all others are in."""
    return f"{datetime.fromtimestamp(seconds).astimezone():%H:%M:%S %Z}"


def time_of_day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%H:%M}"
