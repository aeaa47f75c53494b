"""`BurstCluster`: one Dask scheduler, pilots of several shapes, there with demand, gone when idle.

A Dask cluster like any other for who holds it (`Client(cluster)`, collections, `adapt`); beside
that it runs tasks with an env of their own (`launch`). dask-jobqueue writes and submits the jobs
(`fleet`); how many, of which shape and for how long is ours (`planner`).
"""

from __future__ import annotations

import asyncio
import atexit
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from weakref import WeakSet

from distributed.core import Status, rpc
from distributed.deploy.cluster import Cluster

from hpcburst.comms.credentials import Credentials
from hpcburst.comms.staging import RunFolder, private_folder, sweep_runs
from hpcburst.envs.specs.places import Place, resolve_env
from hpcburst.envs.store import EnvStore
from hpcburst.errors import RequestError
from hpcburst.jobs.dialect import Dialect
from hpcburst.jobs.known import dialect_for
from hpcburst.policy.decide import fits, grant, longest_s
from hpcburst.policy.load import load_site
from hpcburst.policy.model import Site
from hpcburst.policy.wishes import Wishes, granted
from hpcburst.pools.dask_scheduler import PortlessScheduler, Watcher
from hpcburst.pools.face import Face
from hpcburst.pools.fleet import JobFleet, PilotScripts, Program
from hpcburst.pools.history import History
from hpcburst.pools.keeper import Keeper
from hpcburst.pools.planner import Phase
from hpcburst.pools.record import RunRecord
from hpcburst.pools.state import RunNow
from hpcburst.pools.telling import Teller
from hpcburst.pools.tickets import Ticket, ignore_lines
from hpcburst.results import Line, Outcome
from hpcburst.tasks import Burst, Env, Needs, Shape

logger = logging.getLogger("hpcburst")

CLOSE_TIMEOUT_S = 20.0

_open: WeakSet[BurstCluster] = WeakSet()
"""Clusters to close when the interpreter ends without having closed them."""


class BurstCluster(Face, Cluster):  # type: ignore[misc]  # distributed is untyped
    """Pilots on the site's batch system, as many as there is work for.

    Args:
        shapes: Shapes of pilot to use, when the site's default grown to each task's needs will not
            do: `Shape` or a mapping like `{"cores": 4, "memory": "8GB", "walltime": "10m"}`.
        max_jobs: Jobs at once; None is what the site gives. The site's own limit holds in any case.
        prefer: Among queues that hold a task, "soonest" or "cheapest"; None is what the site says.
        budget: Core-hours that this run may spend, at the queues' prices; you are told when four
            fifths are spent. The site's own budget holds in any case.
        env: An env that has the driver's distributed and Python: pilots run inside it, and take
            Dask's own tasks only (collections, `client.submit`). None: in the driver's Python.
        site: The site, or overrides of the `hpcburst` config section; None is the config.
        **cluster_kwargs: `name`, `asynchronous`, `loop`, `quiet` of `distributed.deploy.Cluster`.

    Raises:
        RequestError: A shape or a wish cannot be read, or no queue holds the shape.
        SiteError: The config cannot be read, or the shared root is not private.
        EnvError: The env cannot be built, or pilots of this driver cannot run inside it.

    Examples:
        >>> with BurstCluster(max_jobs=2) as cluster:          # doctest: +SKIP
        ...     Client(cluster).submit(sum, [1, 2]).result()
        3
    """

    def __init__(
        self,
        *,
        shapes: Sequence[Shape | Mapping[str, Any]] = (),
        max_jobs: int | None = None,
        prefer: str | None = None,
        budget: float | None = None,
        env: str | Path | None = None,
        site: Site | Mapping[str, Any] | None = None,
        **cluster_kwargs: Any,
    ) -> None:
        self.status = Status.created
        self._whole_site = site if isinstance(site, Site) else load_site(site)
        self._wishes = Wishes(max_jobs, prefer, budget)
        self.site = granted(self._wishes, self._whole_site)
        self.shapes = tuple(_read_shape(shape, self.site) for shape in shapes)
        self.record = RunRecord()
        self._env = env
        self._envs = EnvStore.of_site(self.site)
        self._run: RunFolder | None = None
        self._telling: asyncio.Task[None] | None = None
        cluster_kwargs.setdefault("quiet", True)
        super().__init__(**cluster_kwargs)
        _open.add(self)
        if not self.called_from_running_loop:
            self._loop_runner.start()
            self.sync(self._start)

    # -- tasks with an env of their own ------------------------------------------------------

    def launch(
        self,
        burst: Burst,
        on_lines: Callable[[Sequence[Line]], None] = ignore_lines,
    ) -> Future[Outcome]:
        """Queue a task; callable from any thread.

        Args:
            burst: The task.
            on_lines: Gets its output as it comes, in the cluster's thread: be quick.

        Returns:
            A future of its Outcome. Cancelling it withdraws the task, or stops it on its pilot. It
            holds a BurstError when the task could not be run (SubmitError, PilotLost, Cancelled).

        Raises:
            RequestError: No queue can hold what the task needs, or the cluster's pilots run inside
                an env of their own; nothing was queued.
        """
        if self._env is not None:
            raise RequestError(
                f"Task {burst.name!r} was to run in an env of its own",
                f"the pilots of this cluster run inside {self._env}, for Dask's own tasks",
                "use a BurstCluster without env= for it",
            )
        shape = grant(burst.needs, self.site, self.shapes)
        ticket = Ticket(burst, shape, on_lines)
        ticket.longest_s = longest_s(shape, burst.needs, self.site, self.shapes)
        ticket.future.add_done_callback(lambda future: self._given_up(ticket, future))
        self.loop.asyncio_loop.call_soon_threadsafe(self._keeper.enqueue, ticket)
        return ticket.future

    def env_for(self, needs: Needs) -> Env | None:
        """The built env that a task with these needs runs in; builds it when it is not there yet.

        Callable from any thread; blocks while the env is built.

        Returns:
            The env, or None when the task runs in the driver's own Python.

        Raises:
            EnvError: The env cannot be found, read, solved, built or loaded.
        """
        if needs.env is None and not needs.modules:
            return None
        return self._envs.ensure(_place(needs), needs.modules)

    def env_key_for(self, needs: Needs) -> str:
        """The key of the env that a task with these needs runs in, known before the env is built.

        Raises:
            EnvError: The env cannot be found or read.
        """
        if needs.env is None and not needs.modules:
            return ""
        return self._envs.key(_place(needs), needs.modules)

    def now(self) -> RunNow:
        """What the run is doing: its tasks, shapes and jobs, each with a reason.

        Callable from any thread.
        """
        return self._keeper.now(self.run_folder.name)

    def why(self) -> list[str]:
        """In words, what every shape of pilot has and why it has not more."""
        return self._keeper.why()

    @property
    def run_folder(self) -> Path:
        """Folder of the run: `logs/`, and `report.txt` and `report.json` when it has ended."""
        if self._run is None:
            raise RuntimeError("the cluster has not started")
        return self._run.path

    # -- a Dask cluster like any other -------------------------------------------------------

    def scale(self, n: int = 0, jobs: int | None = None) -> None:
        """Hold `n` pilots of the default shape, whatever the demand (it still adds to them)."""
        self.loop.add_callback(self._hold, jobs if jobs is not None else n)

    def scale_to_zero(self) -> None:
        """Hold none: pilots that idle leave at once, the others when they do."""
        self.scale(0)
        self.loop.add_callback(self._keeper.let_idle_go)

    def adapt(self, minimum: int = 0, maximum: int | None = None, **_: Any) -> BurstCluster:
        """Follow demand between two bounds; a BurstCluster always follows demand."""
        if maximum is not None:
            self._wishes = replace(self._wishes, max_jobs=maximum)
            self.site = granted(self._wishes, self._whole_site)
            self._keeper.site = self.site
        self.scale(minimum)
        return self

    def job_script(self, shape: Shape | None = None) -> str:
        """The script that a job of this shape (default: the site's) would run."""
        return self._fleet.job_script(shape or self._default_shape)

    @property
    def plan(self) -> set[str]:
        """Names of all pilots asked for."""
        return {pilot.name for pilot in self._keeper.pilots}

    @property
    def requested(self) -> set[str]:
        """Names of all pilots whose job was submitted."""
        return {pilot.name for pilot in self._keeper.pilots if pilot.phase is not Phase.ASKED}

    @property
    def observed(self) -> set[str]:
        """Names of all pilots that said hello."""
        return {worker["name"] for worker in self.scheduler_info["workers"].values()}

    # -- life --------------------------------------------------------------------------------

    async def _start(self) -> None:
        if self.status != Status.created:
            return
        self.status = Status.starting
        self._quieten()
        if self.site.message:
            logger.warning("%s", self.site.message)
        shared_root = self.site.paths.shared_root
        sweep_runs(shared_root, self.site.keep_runs_days)
        self._run = RunFolder.make(shared_root)
        try:
            program = await asyncio.to_thread(self._program, self._run)
            await self._start_scheduler(self._run, program)
            await super()._start()
        except BaseException:
            await self._close()
            raise
        self._keeper.start()
        self._teller = Teller(self._run.path, self.now)
        self._telling = asyncio.create_task(self._teller.keep_telling())

    def _program(self, run: RunFolder) -> Program:
        """What pilots run; an env that they run inside is built and checked."""
        if self._env is None:
            return Program()
        from hpcburst.pools.inside import program_inside

        # Its interpreter is what a job starts with: it must be there before anything is linked.
        seen_by_all = replace(self.site, envs=replace(self.site.envs, place="shared"))
        env = EnvStore.of_site(seen_by_all).ensure(resolve_env(self._env))
        return program_inside(env, run.secret)

    async def _start_scheduler(self, run: RunFolder, program: Program) -> None:
        credentials = Credentials.make(run.secret)
        self.security = credentials.security()
        self.scheduler = await PortlessScheduler(
            host=self.site.host,
            protocol="tls",
            port=0,
            security=self.security,
            dashboard=False,
            # Dask's own place is in a shared temporary folder, where others may have been first;
            # and it imports from there.
            local_directory=str(private_folder(run.secret / "scratch")),
            # Plain Dask tasks survive pilots that leave; ours are not Dask's to count.
            allowed_failures=50,
        )
        dialect = self._dialect(run)
        scripts = PilotScripts(
            dialect, self.site, self.scheduler.address, credentials, str(run.logs), program
        )
        self._fleet = JobFleet(self.scheduler, self.security, dialect, run, self.site, scripts)
        self._keeper = Keeper(
            self.site,
            self._fleet,
            self.record,
            self._default_shape,
            shapes=self.shapes,
            history=History.of(self.site.paths.shared_root),
        )
        self.scheduler.add_plugin(Watcher(self._keeper))
        connection_args = self.security.get_connection_args("client")
        self.scheduler_comm = rpc(self.scheduler.address, connection_args=connection_args)

    def _quieten(self) -> None:
        """Pilots come and go all the time; Dask's word on each is for who asked to read it."""
        logger = logging.getLogger("distributed")
        self._log_level = logger.level
        logger.setLevel(max(logger.level, logging.WARNING))

    async def _close(self) -> None:
        if self.status in (Status.closed, Status.closing):
            return
        keeper = getattr(self, "_keeper", None)
        if keeper is not None:
            await keeper.close()
        await self._fall_silent()
        if self.scheduler_comm is not None:
            await super()._close()
        scheduler = getattr(self, "scheduler", None)
        if scheduler is not None:
            await scheduler.close()
        self.status = Status.closed
        if hasattr(self, "_log_level"):
            logging.getLogger("distributed").setLevel(self._log_level)
        if self._run is not None:
            self._run.close()
            with suppress(OSError):  # a full disk must not keep the run from ending
                self.record.write(self._run.path)

    async def _fall_silent(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
            self._teller.fall_silent()

    def __await__(self) -> Any:
        async def started() -> BurstCluster:
            await self._start()
            return self

        return started().__await__()

    def _dialect(self, run: RunFolder) -> Dialect:
        spool = private_folder(run.secret / "spool")
        return dialect_for(self.site.scheduler, self.site.dialect, spool)

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(timeout=CLOSE_TIMEOUT_S)

    @property
    def _default_shape(self) -> Shape:
        return self.shapes[0] if self.shapes else self.site.default_shape

    def _hold(self, count: int) -> None:
        self._keeper.floor = {self._default_shape: count} if count else {}
        self._keeper.wake()

    def _given_up(self, ticket: Ticket, future: Future[Outcome]) -> None:
        if future.cancelled():
            with suppress(RuntimeError):  # the loop is closed: so is everything on it
                self.loop.asyncio_loop.call_soon_threadsafe(self._keeper.withdraw, ticket)


@atexit.register
def _close_all() -> None:
    for cluster in list(_open):
        if cluster.status != Status.closed and not cluster.asynchronous:
            with suppress(TimeoutError):
                cluster.close(timeout=CLOSE_TIMEOUT_S)


def _read_shape(stated: Shape | Mapping[str, Any], site: Site) -> Shape:
    shape = stated if isinstance(stated, Shape) else Shape.of(**stated)
    queue = site.queue(shape.queue)
    if queue is None or not fits(shape, queue):
        known = ", ".join(queue.name for queue in site.queues)
        raise RequestError(f"The shape {shape} was asked for", f"no queue takes it ({known})")
    return shape


def _place(needs: Needs) -> Place | None:
    """Where the env is; a relative one is looked up beside the function's file first."""
    if needs.env is None:
        return None
    return resolve_env(needs.env, [Path(needs.folder)] if needs.folder else [])
