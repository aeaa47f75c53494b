"""How the fake commands read scripts and arguments: strictly."""

from __future__ import annotations

import re

from support.fakebatch.engine import Refused

QUEUES = ("short", "batch")

PATH = r"/[\w./+=@~$%()-]*[^/]"
NAME = r"[\w.-]+"


def directives(script, mark, *accepted):
    """Named groups of a script's directives, each of which must match one of the patterns."""
    found = {}
    for line in script.splitlines():
        words = line.removeprefix(mark).strip()
        if words != line.strip():
            match = next(filter(None, (re.fullmatch(option, words) for option in accepted)), None)
            if match is None:
                raise Refused(f"unknown option: {words}")
            found |= {name: value for name, value in match.groupdict().items() if value}
    return found


def check_queue(found):
    """Refuse an unknown queue."""
    if found.get("queue", QUEUES[0]) not in QUEUES:
        raise Refused(f"invalid queue specified: {found['queue']}")


def seconds(text):
    """Seconds of "H:MM:SS", or of plain seconds."""
    total = 0
    for number in text.split(":"):
        total = total * 60 + int(number)
    return total


def expect(args, *words):
    """Refuse arguments that do not begin with these; the rest of them."""
    if tuple(args[: len(words)]) != words:
        raise Refused(f"invalid arguments: {args}")
    return args[len(words) :]
