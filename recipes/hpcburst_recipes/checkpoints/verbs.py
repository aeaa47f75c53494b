"""What the actions of `hpcburst checkpoint` do."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.amounts import read_walltime_s
from hpcburst.errors import RequestError
from hpcburst_recipes.checkpoints.answer import answer, wake
from hpcburst_recipes.checkpoints.answering import (
    DEADLINE_FILE,
    Checkpoint,
    InvalidAnswer,
    read_pairs,
)
from hpcburst_recipes.checkpoints.desk import (
    Standing,
    checkpoints,
    find,
    settle_due,
    standing_of,
)
from hpcburst_recipes.checkpoints.record import RECORD

if TYPE_CHECKING:
    from hpcburst.policy.model import Site


def run_list(args: argparse.Namespace) -> int:
    """List them."""
    site = _site()
    settle_due(site.paths.shared_root)
    known = checkpoints(site.paths.shared_root)
    for one in known:
        if standing_of(one) is Standing.ANSWERED:
            wake(one)  # its answer came where Prefect's server could not be reached
    shown = known if args.all else [o for o in known if standing_of(o) is not Standing.DECIDED]
    if args.json:
        print(json.dumps([brief(one) for one in shown], indent=1))
        return 0
    if not shown:
        print("nothing waits for you")
    for one in shown:
        print(_line(one))
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Say all there is to say of one."""
    one = _find(args)
    if args.json:
        whole = {**brief(one), "schema": one.question["schema"], "data": one.question["data"]}
        print(json.dumps({**whole, "refused": one.refusals()}, indent=1))
        return 0
    print(_line(one))
    print(f"\n  {printable(one.question['text'])}\n")
    for name, field in one.question["schema"].get("properties", {}).items():
        print(f"  {name}: {_field_words(field)}")
    for name, item in one.question["data"].items():
        print(f"  shows {name} ({item['shown_as']}): {one.folder}/{item['file']}")
    for why in one.refusals():
        print(f"  refused: {printable(why)}")
    for name in ("preview.html", RECORD):
        if Path(one.folder, name).exists():
            print(f"  {name.partition('.')[0]}: {one.folder}/{name}")
    return 0


def run_approve(args: argparse.Namespace) -> int:
    """Say yes."""
    one = _find(args)
    try:
        values = read_pairs(args.values, one.question["schema"])
    except InvalidAnswer as error:
        raise RequestError(f"The checkpoint {one.id} was to be approved", str(error)) from error
    return _answer(args, "approve", values, args.note)


def run_reject(args: argparse.Namespace) -> int:
    """Say no."""
    return _answer(args, "reject", {}, " ".join(args.why))


def run_open(args: argparse.Namespace) -> int:
    """Open its notebook."""
    from hpcburst_recipes.jupyter.visit import Visit

    site = _site()
    one = find(site.paths.shared_root, args.id)
    visit = Visit(one, site, print_only=args.print, browser=not args.no_browser, json=args.json)
    return visit.run(args.walltime)


def run_extend(args: argparse.Namespace) -> int:
    """Give it more time: a later deadline, and a new job for its session if there is one."""
    from hpcburst_recipes.jupyter.job import Desk

    site = _site()
    one = find(site.paths.shared_root, args.id)
    said: dict[str, Any] = {"id": one.id}
    deadline = one.deadline()
    if deadline is not None:
        later = max(deadline, time.time()) + read_walltime_s(args.by)
        one.replace(DEADLINE_FILE, {"at": later})
        said["deadline"] = later
    desk = Desk(one, site)
    if desk.live() is not None:
        said["job"] = desk.submit(args.by)
    return _say(args, said, _extended(said))


def run_close(args: argparse.Namespace) -> int:
    """End its session."""
    from hpcburst.jobs.dialect import JobState
    from hpcburst_recipes.jupyter.job import Desk
    from hpcburst_recipes.jupyter.panel import CLOSE_FILE

    site = _site()
    one = find(site.paths.shared_root, args.id)
    desk = Desk(one, site)
    live = desk.live() is not None
    news = desk.news()
    if live:
        one.keep(CLOSE_FILE, {"at": time.time()})
    elif news is not None and news.state in (JobState.PENDING, JobState.RUNNING):
        desk.cancel()
        live = True
    words = "its session ends; the checkpoint waits" if live else "it has no session"
    return _say(args, {"id": one.id, "closed": live}, words)


def brief(one: Checkpoint) -> dict[str, Any]:
    """A checkpoint in the words of `--json`."""
    question = one.question
    standing = one.outcome() or one.answer()
    return {
        "id": one.id,
        "name": question["name"],
        "standing": str(standing_of(one)),
        "text": question["text"],
        "created": question["created"],
        "deadline": one.deadline(),
        "on_timeout": question["on_timeout"],
        "flow_run": question["flow_run"],
        "answer": standing,
        "folder": one.folder,
    }


def printable(text: str) -> str:
    """Text without control characters: what a flow asks must not move a terminal's cursor."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text)


def _answer(args: argparse.Namespace, action: str, values: dict[str, Any], note: str) -> int:
    done = answer(args.id, action, values, note=note, via="command line")
    said = {"id": done.checkpoint.id, **done.answer, "woken": done.woken, "trouble": done.trouble}
    words = f"recorded: {action} {_pairs(done.answer['values'])}".rstrip()
    if done.woken:
        words += "; the flow begins again"
    elif done.trouble:
        words += f"\nPrefect's server could not be told ({done.trouble}):"
        words += "\n`hpcburst checkpoint list` tells it as soon as it answers"
    return _say(args, said, words)


def _say(args: argparse.Namespace, said: dict[str, Any], words: str) -> int:
    print(json.dumps(said) if args.json else words)
    return 0


def _extended(said: dict[str, Any]) -> str:
    parts = []
    if "deadline" in said:
        parts.append(f"the deadline is {_clock(said['deadline'])}")
    if "job" in said:
        parts.append(f"job {said['job']} takes its session over, with the same notebook")
    return "; ".join(parts) or "it has neither a deadline nor a session"


def _line(one: Checkpoint) -> str:
    question = one.question
    since = _age(time.time() - question["created"])
    standing = one.outcome() or one.answer()
    if standing is None:
        deadline = one.deadline()
        until = f", until {_clock(deadline)}, then {question['on_timeout']}" if deadline else ""
        what = f"waits for {since}{until}"
    else:
        who = f"{standing['who']} ({standing['via']})"
        what = f"{standing['action']} {_pairs(standing['values'])} by {who}"
    return f"{one.id}  {question['name']}  {printable(what)}"


def _field_words(field: dict[str, Any]) -> str:
    values = field.get("enum") or field.get("items", {}).get("enum")
    words: Sequence[str] = field.get("words") or ()
    told = (
        [f"{json.dumps(field['default'])} by default"] if "default" in field else ["must be said"]
    )
    if values:
        pairs = [f"{value} ({words[n]})" if words else str(value) for n, value in enumerate(values)]
        told.append("one of " + ", ".join(pairs))
    bounds = (("minimum", "at least"), ("maximum", "at most"))
    told += [f"{word} {field[name]}" for name, word in bounds if name in field]
    return printable("; ".join(told))


def _pairs(values: dict[str, Any]) -> str:
    return printable(" ".join(f"{name}={value}" for name, value in values.items()))


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _find(args: argparse.Namespace) -> Checkpoint:
    return find(_site().paths.shared_root, args.id)


def _site() -> Site:
    from hpcburst.policy.load import load_site

    return load_site()
