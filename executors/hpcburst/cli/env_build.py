"""`hpcburst env create` and `lock`: envs and locks, made ahead of a run."""

from __future__ import annotations

import queue
import secrets
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcburst.cli.env_find import bare_key, chosen_site, open_store
from hpcburst.cli.env_progress import DONE, shown_progress
from hpcburst.cli.env_words import as_text, count_text, print_columns, print_json, size_text
from hpcburst.errors import BurstError, EnvError, RequestError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from hpcburst.envs.building.solve import Package
    from hpcburst.envs.child.process import Progress
    from hpcburst.envs.store import EnvStore, Preview

AT_ONCE = 2
"""Envs built at the same time: one downloads while the other links; more would share a disk."""

STOP_S = 10.0
"""Seconds that builds get to clean up after Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a new lock changed about one package; "" for a version means it was not there."""

    name: str
    old: str
    new: str


def create(args: argparse.Namespace) -> int:
    """Build the envs of specs, unless they are there; print their keys and prefixes.

    Raises:
        RequestError: One prefix was given for several specs.
    """
    if args.prefix and len(args.specs) > 1:
        raise RequestError(
            f"{len(args.specs)} envs were to be built at {args.prefix}",
            "one prefix holds one env",
            "build them one by one",
        )
    site = chosen_site(args)
    make = _previewed if args.dry_run else _built
    with shown_progress() as board:
        several = len(args.specs) > 1

        def one(spec: str, watched: Callable[[Progress], Progress]) -> dict[str, Any]:
            progress = watched(board(Path(spec).name if several else ""))
            answer = make(open_store(progress, site), spec, args)
            progress(DONE, 1, 1)
            return answer

        answers = side_by_side(args.specs, one)
    return _say_answers(answers, several=several, as_json=args.json)


def lock(args: argparse.Namespace) -> int:
    """Write the lock of a spec without building it; `--update` solves anew and says what changed.

    Raises:
        hpcburst.errors.EnvError: It cannot be solved, or written.
    """
    site = chosen_site(args)
    with shown_progress() as board:
        store = open_store(board(""), site)
        document = _dry_lock(store, args) if args.dry_run else _written_lock(store, args)
    if args.json:
        print_json(document)
    else:
        _say_lock(document, dry_run=args.dry_run)
    return 0


def side_by_side(
    specs: Sequence[str],
    work: Callable[[str, Callable[[Progress], Progress]], dict[str, Any]],
) -> list[dict[str, Any] | BurstError]:
    """Answers in the order of the specs, two made at a time; an error is an answer as well.

    Ctrl-C stops all of them where they next report progress, so that each can clean up.
    """
    line = _Line(specs, work)
    if len(specs) == 1:
        line.run()
    else:
        line.run_in_threads()
    return [line.answers[number] for number in range(len(specs))]


class _Line:
    """Specs that wait for one of the builders."""

    def __init__(self, specs: Sequence[str], work: Callable[..., dict[str, Any]]) -> None:
        self.answers: dict[int, dict[str, Any] | BurstError] = {}
        self._specs = specs
        self._work = work
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._failures: list[BaseException] = []
        for number in range(len(specs)):
            self._waiting.put(number)

    def run(self) -> None:
        with suppress(queue.Empty):
            while not self._stopped.is_set():
                number = self._waiting.get_nowait()
                try:
                    self.answers[number] = self._work(self._specs[number], self._watched)
                except BurstError as error:
                    self.answers[number] = error

    def run_in_threads(self) -> None:
        # Not `Thread.join`: up to Python 3.12 one that was interrupted takes the thread for ended.
        ended = [threading.Event() for _ in range(min(AT_ONCE, len(self._specs)))]
        threads = [threading.Thread(target=self._run_aside, args=(e,), daemon=True) for e in ended]
        for thread in threads:
            thread.start()
        try:
            for each in ended:
                each.wait()
        except KeyboardInterrupt:
            self._stopped.set()
            for each in ended:
                each.wait(STOP_S)
            raise
        for failure in self._failures:
            raise failure

    def _run_aside(self, ended: threading.Event) -> None:
        try:
            self.run()
        except BaseException as error:  # noqa: BLE001 - the edge of a thread: raised by its starter
            self._failures.append(error)
            self._stopped.set()
        finally:
            ended.set()

    def _watched(self, progress: Progress) -> Progress:
        def tell(what: str, done: int, total: int | None) -> None:
            if self._stopped.is_set():
                raise KeyboardInterrupt
            progress(what, done, total)

        return tell


def _built(store: EnvStore, spec: str, args: argparse.Namespace) -> dict[str, Any]:
    env = store.place(spec, args.prefix) if args.prefix else store.ensure(spec)
    return {"spec": spec, "key": env.key, "prefix": env.prefix, "pack": env.pack}


def _previewed(store: EnvStore, spec: str, args: argparse.Namespace) -> dict[str, Any]:
    preview: Preview = store.preview(spec)
    prefix = args.prefix or preview.prefix
    return {"spec": spec, **asdict(preview), "prefix": prefix}


def _say_answers(
    answers: Sequence[dict[str, Any] | BurstError], *, several: bool, as_json: bool
) -> int:
    failed = [answer for answer in answers if isinstance(answer, BurstError)]
    if failed and not several:
        raise failed[0]
    for answer in answers:
        if isinstance(answer, BurstError):
            print(f"hpcburst: {answer}", file=sys.stderr)
        elif as_json:
            print_json(answer, lines=True)
        elif "built" in answer:
            _say_preview(answer)
        else:
            words = [answer["key"], answer["pack"] or answer["prefix"]]
            print("  ".join([*words, answer["spec"]] if several else words))
    return int(bool(failed))


def _say_preview(preview: dict[str, Any]) -> None:
    if preview["built"]:
        print(f"{preview['key']}  is there: {preview['prefix']}")
        return
    packages = preview["packages"]
    size = sum(package["size"] for package in packages)
    print(f"{preview['key']}  would be built in {preview['prefix']}")
    print(f"{count_text(len(packages), 'package')}, archives of {size_text(size)}:")
    _say_packages(packages)


def _say_packages(packages: Sequence[dict[str, Any]]) -> None:
    rows = sorted((f"  {p['name']}", p["version"], p["build"]) for p in packages)
    if rows:
        print_columns(rows)


def _dry_lock(store: EnvStore, args: argparse.Namespace) -> dict[str, Any]:
    preview = store.preview(args.spec, anew=args.update)
    target = Path(args.output) if args.output else store.folders.lock(preview.key)
    return {
        "key": preview.key,
        "lock": str(target),
        "written": False,
        "packages": [asdict(package) for package in preview.packages],
        "changes": [],
    }


def _written_lock(store: EnvStore, args: argparse.Namespace) -> dict[str, Any]:
    spec = store.read(args.spec)
    if args.output and spec.pip:
        raise _half_locked(args)
    key = bare_key(store, spec)
    shared = store.folders.lock(key)
    before = store.packages(shared) if shared.exists() else None
    path = store.lock(args.spec, anew=args.update)
    after = store.packages(path)
    if args.output:
        path = copy_lock(path, Path(args.output))
    changes = difference(before, after) if before is not None else []
    return {
        "key": key,
        "lock": str(path),
        "written": before is None or args.update or bool(args.output),
        "packages": [asdict(package) for package in after],
        "changes": [asdict(change) for change in changes],
        "built": store.find(key) is not None,
        "left_out": [n for n in ("variables", "modules") if args.output and getattr(spec, n)],
    }


def _half_locked(args: argparse.Namespace) -> RequestError:
    return RequestError(
        f"The lock of {args.spec} was to be written to {args.output}",
        "it has a pip section, which is chosen when the env is built and locked beside its lock "
        "under the shared root; the file would lack these packages",
        "lock it without -o, or take a pixi project, whose lock holds both",
    )


def copy_lock(lock: Path, target: Path) -> Path:
    """Copy a lock to a file of the user's, aside and then in place.

    Raises:
        EnvError: It cannot be written there.
    """
    target = target.expanduser().absolute()
    aside = target.with_name(f".{target.name}-{secrets.token_hex(6)}")
    try:
        aside.write_bytes(lock.read_bytes())
        aside.chmod(lock.stat().st_mode & 0o777)
        aside.replace(target)
    except OSError as error:
        raise EnvError(
            f"A lock was to be written to {target}",
            error.strerror or str(error),
            "name a file in a folder that you may write to",
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink()
    return target


def difference(before: Sequence[Package], after: Sequence[Package]) -> list[Change]:
    """What changed between two locks, by package name. Pure."""
    old = {package.name: f"{package.version} {package.build}".strip() for package in before}
    new = {package.name: f"{package.version} {package.build}".strip() for package in after}
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return [Change(name, old.get(name, ""), new.get(name, "")) for name in names]


def _say_lock(document: dict[str, Any], *, dry_run: bool) -> None:
    count = count_text(len(document["packages"]), "package")
    if dry_run:
        print(f"{document['key']}  would be locked in {document['lock']}")
        _say_packages(document["packages"])
        return
    print(f"{document['key']}  {count}  {as_text(document['lock'])}")
    if document["left_out"]:
        left = " and ".join(document["left_out"])
        print(f"locks hold no {left}: state them where the env is used", file=sys.stderr)
    rows = [
        (f"  {change['name']}", change["old"] or "(new)", "->", change["new"] or "(gone)")
        for change in document["changes"]
    ]
    if rows:
        print_columns(rows)
        if document["built"]:
            print(
                "the env built from the old lock stays as it is: take it away with "
                f"`hpcburst env remove {document['key']}`, then create it again",
                file=sys.stderr,
            )
