"""`hpcburst env`: build envs ahead of a run, look at them, look after them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpcburst.cli import env_build, env_keep, env_look, env_verify
from hpcburst.policy.model import BUILDERS, PLACES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_AN_ENV = "a key or its beginning (4 characters or more), a spec, or a prefix"
_A_SPEC = "an environment.yml, a lock, a pixi project, or the name of a conda env"


def register(verbs: Any) -> None:
    """Add the verb and its own verbs."""
    parser = verbs.add_parser(
        "env",
        help="build, lock, check and remove conda envs",
        description="Envs are built once, under the shared root, and found by their key.",
    )
    own = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add in (_create, _lock, _list, _show, _verify, _gc, _remove, _why):
        add(own)


def _create(own: Any) -> None:
    verb = _verb(own, "create", "build the envs of specs, or find them built", env_build.create)
    verb.add_argument("specs", nargs="+", metavar="SPEC", help=_A_SPEC)
    _add_building(verb)
    verb.add_argument("--place", choices=PLACES, help="where nodes use it from")
    verb.add_argument("--prefix", metavar="DIR", help="build it there, and not under its key")
    _add_dry_run(verb)


def _lock(own: Any) -> None:
    verb = _verb(own, "lock", "choose exact packages and write them down", env_build.lock)
    verb.add_argument("spec", metavar="SPEC", help=_A_SPEC)
    verb.add_argument(
        "-o", "--output", metavar="FILE", help="write it there too, to be committed beside the spec"
    )
    verb.add_argument(
        "--update",
        action="store_true",
        help="choose anew, and say what changed since the last lock",
    )
    _add_building(verb)
    _add_dry_run(verb)


def _list(own: Any) -> None:
    _verb(own, "list", "list the envs that are built", env_look.list_envs)


def _show(own: Any) -> None:
    verb = _verb(own, "show", "say what is in an env", env_look.show)
    verb.add_argument("env", metavar="ENV", help=_AN_ENV)
    verb.add_argument(
        "--activation",
        action="store_true",
        help="print shell text that activates it, to be sourced",
    )


def _verify(own: Any) -> None:
    verb = _verb(own, "verify", "compare every file with what was installed", env_verify.verify)
    verb.add_argument("envs", nargs="*", metavar="ENV", help=_AN_ENV)
    verb.add_argument("--all", action="store_true", help="all envs of the store")
    verb.add_argument(
        "--quick", action="store_true", help="compare sizes, and read only what changed since"
    )
    verb.add_argument("--repair", action="store_true", help="build damaged ones again")
    _add_dry_run(verb)


def _gc(own: Any) -> None:
    verb = _verb(own, "gc", "take away what nobody has used for long", env_keep.collect)
    verb.add_argument(
        "--older-than", default="30d", metavar="AGE", help="such as 30d or 12h (default: 30d)"
    )
    verb.add_argument(
        "--keep", action="append", default=[], metavar="KEY", help="an env that stays in any case"
    )
    verb.add_argument(
        "--locks", action="store_true", help="locks that no env is built from as well"
    )
    verb.add_argument(
        "--force",
        action="store_true",
        help="also what a running job may use: say it when none runs",
    )
    _add_dry_run(verb)


def _remove(own: Any) -> None:
    verb = _verb(own, "remove", "take envs away", env_keep.remove)
    verb.add_argument("keys", nargs="+", metavar="KEY", help="a key, or its beginning")
    verb.add_argument(
        "--lock", action="store_true", help="its lock as well: the next build chooses packages anew"
    )
    _add_dry_run(verb)


def _why(own: Any) -> None:
    verb = _verb(own, "why", "say why specs do not share one env", env_look.why)
    verb.add_argument("envs", nargs="+", metavar="ENV", help="two or more specs or keys")


def _verb(own: Any, name: str, help_text: str, run: Callable[[argparse.Namespace], int]) -> Any:
    verb = own.add_parser(name, help=help_text)
    verb.add_argument("--json", action="store_true", help="print JSON, for programs")
    verb.set_defaults(run=run)
    return verb


def _add_building(verb: Any) -> None:
    verb.add_argument(
        "--with", dest="builder", choices=BUILDERS, help="who chooses and links packages"
    )
    verb.add_argument("--offline", action="store_true", help="fetch nothing: use what is cached")


def _add_dry_run(verb: Any) -> None:
    verb.add_argument("--dry-run", action="store_true", help="only say what would be done")
