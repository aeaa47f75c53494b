"""`hpcburst prefect`: a Prefect server and a worker of one's own, in one command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from hpcburst_recipes.prefect_server.house import House, Wish
    from hpcburst_recipes.prefect_server.place import Running

ABOUT = """
Start a Prefect server with a password and a worker of type hpcburst: flows that are deployed to the
work pool run as batch jobs, by schedule or from the page. Saying it again starts what is missing.
"""


def register(verbs: Any) -> None:
    """Add the verb and its own verbs."""
    parser = verbs.add_parser(
        "prefect", help="run a Prefect server and a worker of your own", description=ABOUT
    )
    own = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add in (_up, _status, _down):
        add(own)


def _up(own: Any) -> None:
    verb = own.add_parser("up", help="start server and worker, or what of them is missing")
    verb.add_argument("--pool", default="hpcburst", help="work pool (default: %(default)s)")
    where = verb.add_mutually_exclusive_group()
    where.add_argument("--interface", metavar="NAME", help="listen on this network interface")
    where.add_argument("--host", metavar="ADDRESS", help="listen on this address")
    verb.add_argument("--port", type=int, help="listen on this port (default: one of your own)")
    verb.add_argument("--database", metavar="URL", help="a Postgres; its password in ~/.pgpass")
    verb.add_argument("--share-with", metavar="GROUP", help="let this Unix group use it")
    verb.add_argument("--no-worker", action="store_true", help="start the server alone")
    _common(verb)
    verb.add_argument("--dry-run", action="store_true", help="say what would be started")
    verb.set_defaults(run=up)


def _status(own: Any) -> None:
    verb = own.add_parser("status", help="say what runs and how to reach it; 1 if it does not")
    _common(verb)
    verb.set_defaults(run=status)


def _down(own: Any) -> None:
    verb = own.add_parser("down", help="end server and worker; jobs go on, data stay")
    _common(verb)
    verb.add_argument("--dry-run", action="store_true", help="say what would be ended")
    verb.set_defaults(run=down)


def _common(verb: Any) -> None:
    verb.add_argument("--folder", type=Path, help="where its files lie (default: your own)")
    verb.add_argument("--json", action="store_true", help="print JSON, for programs")


def up(args: argparse.Namespace) -> int:
    """Start what does not run yet, and say how to reach it.

    Raises:
        hpcburst.errors.BurstError: It cannot be started.
    """
    house, wish = _house(args), _wish(args)
    if args.dry_run:
        return _say_plan(house, wish, as_json=args.json)
    running = house.up(wish)
    if args.json:
        print(json.dumps(house.status(), indent=2))
    else:
        print(_reached(house, running))
    return 0


def status(args: argparse.Namespace) -> int:
    """Say what runs; 1 unless server and worker do."""
    house = _house(args)
    told = house.status()
    running = house.place.read()
    if args.json:
        print(json.dumps(told, indent=2))
    elif running is None or not told["server"]:
        print("no Prefect server runs; start one by `hpcburst prefect up`")
    else:
        worker = "at work" if told["worker"] else "not there: say `hpcburst prefect up`"
        print(f"server: up on {running.machine}\nworker: {worker}\n")
        print(_reached(house, running))
    return int(not (told["server"] and told["worker"]))


def down(args: argparse.Namespace) -> int:
    """End server and worker.

    Raises:
        hpcburst.errors.SiteError: They run on another machine.
    """
    house = _house(args)
    running = house.place.read() if args.dry_run else house.down()
    ended = [] if running is None else [running.url]
    if args.json:
        print(json.dumps({"ended": ended, "dry_run": args.dry_run}))
    elif running is None:
        print("nothing runs")
    else:
        verb = (
            "would be ended"
            if args.dry_run
            else "ended; its jobs go on and are adopted by the next"
        )
        print(f"{running.url}: {verb}")
    return 0


def _house(args: argparse.Namespace) -> House:
    from hpcburst.policy.load import load_site
    from hpcburst_recipes.prefect_server.house import house_of

    def say(text: str) -> None:
        print(f"hpcburst: {text}", file=sys.stderr, flush=True)

    return house_of(load_site(), args.folder, say)


def _wish(args: argparse.Namespace) -> Wish:
    from hpcburst.policy.address import address_of
    from hpcburst_recipes.prefect_server.house import Wish
    from hpcburst_recipes.prefect_server.settings import check_database

    return Wish(
        pool=args.pool,
        address=address_of(args.interface) if args.interface else args.host,
        port=args.port,
        database=check_database(args.database) if args.database else None,
        group=args.share_with,
        worker=not args.no_worker,
    )


def _say_plan(house: House, wish: Wish, *, as_json: bool) -> int:
    told = house.status()
    missing = [name for name in ("server", "worker") if not told[name]]
    if not wish.worker:
        missing = [name for name in missing if name != "worker"]
    address = wish.address or house.site.host
    if as_json:
        print(json.dumps({"start": missing, "address": address, "folder": told["folder"]}))
    else:
        what = " and ".join(missing)
        print(f"{what} would be started, listening on {address}" if what else "all runs already")
    return 0


def _reached(house: House, running: Running) -> str:
    """How to reach it; the secret itself is never printed."""
    import getpass

    from hpcburst_recipes.prefect_server.settings import tunnel

    way = tunnel(running.address, running.port, getpass.getuser(), running.machine)
    return "\n".join(
        (
            f"The page on this machine   {running.url.removesuffix('/api')}",
            f"From your own machine      {way}",
            "                           then http://localhost:4200",
            f"Its form asks for          the line in {house.place.secret_file}",
            f"In a shell, before prefect . {house.place.shell_file}",
            f"Work pool                  {running.pool}",
            f"Logs                       {house.place.log('server')}, {house.place.log('worker')}",
        )
    )
