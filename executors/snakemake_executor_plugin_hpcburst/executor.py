"""The executor: hands Snakemake's jobs to the cluster and its answers back. It only translates."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import SharedFSUsage
from snakemake_interface_executor_plugins.utils import encode_target_jobs_cli_args

from hpcburst.errors import BurstError, RequestError
from hpcburst.results import Outcome
from hpcburst.tasks import Burst, Command, Needs
from snakemake_executor_plugin_hpcburst import answers, direct
from snakemake_executor_plugin_hpcburst.commands import (
    LEAN,
    ONCE,
    Call,
    Target,
    check_targets,
    job_environment,
    read_call,
)
from snakemake_executor_plugin_hpcburst.interrupts import held_off
from snakemake_executor_plugin_hpcburst.logs import RunLogs
from snakemake_executor_plugin_hpcburst.modes import (
    MODES,
    Circumstances,
    Errand,
    Mode,
    choose_modes,
)
from snakemake_executor_plugin_hpcburst.places import Places
from snakemake_executor_plugin_hpcburst.resources import spread_of_job, whole_needs
from snakemake_executor_plugin_hpcburst.seen import RunSeen
from snakemake_executor_plugin_hpcburst.settings import ExecutorSettings

FILES = {SharedFSUsage.INPUT_OUTPUT, SharedFSUsage.STORAGE_LOCAL_COPIES}
"""What nodes must share with the main process for it to prepare a job and look at its results."""


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A job under way: what Snakemake knows it by, its future and its log.

    `nested` says whether a nested Snakemake runs it, and writes the log.
    """

    info: SubmittedJobInfo
    future: Future[Outcome]
    log: Path
    nested: bool
    needs: Needs


class Executor(RemoteExecutor):  # type: ignore[misc]  # Snakemake's interface is not typed
    """Runs the jobs of one workflow on a cluster of short batch jobs.

    The cluster starts with the first job and ends with `shutdown`, whatever happened in between.
    Results are pushed: the base class's polling thread sleeps until there is one, and reports it.
    (The cluster's own thread must not: Snakemake may hold a report up for its latency-wait.)
    """

    def __init__(self, workflow: Any, logger: Any) -> None:
        # The base class starts a thread that calls us, so everything it may meet comes first.
        self._settings: ExecutorSettings = workflow.executor_settings or ExecutorSettings()
        self._places = Places(self._settings)
        self._running: set[Running] = set()
        self._ended: deque[Running] = deque()
        self._guard = threading.Lock()
        self._wake: Callable[[], object] = lambda: None
        self._stopped = False
        self._logs = RunLogs.of_this_process(self._settings.log_dir, keep=self._settings.keep_logs)
        self._seen = RunSeen(
            logger,
            self._logs,
            self._settings,
            jobs=lambda: len(self._running),
            pilots=self._places.lives,
        )
        if workflow.remote_execution_settings.immediate_submit:
            raise WorkflowError(
                "--immediate-submit was asked for. The hpcburst executor keeps the order of jobs "
                "itself and its batch jobs end with it. Leave the option out."
            )
        super().__init__(workflow, logger)
        try:
            self._modes = choose_modes(self._settings.mode, self._circumstances())
        except RequestError as error:
            self.shutdown()
            raise WorkflowError(str(error)) from error

    def run_job(self, job: JobExecutorInterface) -> None:
        """Send one job or group job to the cluster. A job that cannot be sent has failed."""
        info = SubmittedJobInfo(job)
        try:
            self._seen.begin()
            spread = spread_of_job(dict(job.resources.items()))
            burst, log, nested = self._burst(job, alone=spread is not None)
            self.report_job_submission(info)
            future = self._places.launch(burst, spread)
        except (BurstError, WorkflowError, *_errors_of_rules(), OSError) as error:
            self._report_failure(info, answers.refusal(error))
            return
        running = Running(info, future, log, nested, whole_needs(burst.needs, spread))
        with self._guard:
            self._running.add(running)
        future.add_done_callback(lambda _: self._hear(running))

    def report_job_submission(self, job_info: SubmittedJobInfo, register_job: bool = True) -> None:
        """Mark the job as begun, without listing it for the base class to poll."""
        super(RemoteExecutor, self).report_job_submission(job_info, register_job=register_job)

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report what has ended since. Nothing is asked for: answers come by themselves."""
        while self._ended:
            self._report(self._ended.popleft())
        for info in active_jobs:
            yield info

    async def sleep(self) -> None:
        """Sleep until a job has ended or `shutdown`, which never waits for a polling interval."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        with self._guard:
            self._wake = partial(loop.call_soon_threadsafe, woken.set)
            busy = self._stopped or self._ended
        if not busy:
            await woken.wait()

    def cancel(self) -> None:
        """Withdraw every job and end the cluster. A further Ctrl-C waits for it."""
        with held_off():
            with self._guard:
                active = [running.info for running in self._running]
            try:
                self.cancel_jobs(active)
            finally:
                self.shutdown()

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Withdraw these jobs; Snakemake hears of them no more."""
        wanted = {id(info) for info in active_jobs}
        with self._guard:
            withdrawn = {running for running in self._running if id(running.info) in wanted}
            self._running -= withdrawn
        for running in withdrawn:
            running.future.cancel()

    def shutdown(self) -> None:
        """End the cluster and with it every batch job. Idempotent."""
        with self._guard:
            self._stopped, self.wait = True, False
            self._running.clear()
        try:
            self._wake_up()
            super().shutdown()
        finally:
            self._places.close()
            self._seen.close()
            self._logs.close()

    def _hear(self, running: Running) -> None:
        with self._guard:
            self._ended.append(running)
        self._wake_up()

    def _wake_up(self) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody sleeps in it
            self._wake()

    def _circumstances(self) -> Circumstances:
        shared = self.workflow.storage_settings.shared_fs_usage
        return Circumstances(
            precommand=bool(self._precommand()),
            shares_software=SharedFSUsage.SOFTWARE_DEPLOYMENT in shared,
            shares_files=set(shared) >= FILES,
            known_release=direct.is_known_release(),
        )

    def _precommand(self) -> str:
        factory = self.workflow.spawned_job_args_factory
        return str(factory.precommand(executor_common_settings=self.common_settings))

    def _burst(self, job: JobExecutorInterface, *, alone: bool) -> tuple[Burst, Path, bool]:
        needs = self._places.needs(job.threads, dict(job.resources.items()))
        log = self._logs.begin(job.name, answers.label(job))
        errand = Errand(
            job,
            lambda: self._call(job, needs),
            folder=self.workflow.workdir_init,
            environ=job_environment(os.environ, self.envvars()),
            log=str(log),
            note=self.logger.debug,
        )
        command, nested = self._command(errand, (MODES["spawn"],) if alone else self._modes)
        burst = Burst(job.name, command, needs, timeout_s=needs.walltime_s)
        return burst, log, nested

    def _command(self, errand: Errand, modes: Sequence[Mode]) -> tuple[Command, bool]:
        """What the first mode that takes the job sends, and whether that is a nested call."""
        for mode in modes:
            command = mode.command(errand)
            if command is not None:
                if not mode.is_nested:
                    self.workflow.async_run(errand.job.prepare())
                return command, mode.is_nested
        raise AssertionError("the last mode takes every job")

    def _call(self, job: JobExecutorInterface, needs: Needs) -> Call:
        check_targets(list(job.get_target_spec()), _carried_targets(job))
        names = [*job.get_wait_for_files(), *self.dag.get_unneeded_temp_files(job)]
        python = self.get_python_executable()
        text = self.format_job_exec(job)
        call = read_call(text, python, self._precommand(), map(str, names))
        arguments = (*call.arguments, *self._options_of_this_release())
        if job.is_group():  # else it would use every core of a node it shares with others
            arguments += ("--cores", str(needs.cores))
        return Call(call.python, arguments, call.precommand)

    def _options_of_this_release(self) -> tuple[str, ...]:
        scheduling = self.workflow.scheduling_settings
        remote = self.workflow.remote_execution_settings
        lean = LEAN if hasattr(scheduling, "max_jobs_per_timespan") else ()
        return lean + (ONCE if hasattr(remote, "preemptible_rules") else ())

    def _report(self, running: Running) -> None:
        with self._guard:
            if running not in self._running:  # withdrawn, or the workflow is over
                return
            self._running.remove(running)
        self._seen.note(running.info.job.name, running.needs, running.future)
        answer = answers.of_future(
            running.info.job, running.future, running.log, nested=running.nested
        )
        if answer is None:
            self._logs.end_well(running.log)
            self.report_job_success(running.info)
        else:
            self._report_failure(running.info, answer)

    def _report_failure(self, info: SubmittedJobInfo, answer: answers.Answer) -> None:
        info.external_jobid = answer.job_id
        if info.job.is_group():  # Snakemake drops the message of a group's error
            self.logger.error(answer.text)
        self.report_job_error(info, msg=answer.text, aux_logs=list(answer.logs))


def _errors_of_rules() -> tuple[type[Exception], ...]:
    """What Snakemake raises for one rule; its interface for plug-ins does not have them."""
    from snakemake.exceptions import RuleException

    return (RuleException,)


def _carried_targets(job: JobExecutorInterface) -> list[Target]:
    """A job's targets after Snakemake wrote them into a command line and read them back."""
    from snakemake.target_jobs import parse_target_jobs_cli_args

    try:
        return list(parse_target_jobs_cli_args(encode_target_jobs_cli_args(job.get_target_spec())))
    except ValueError:
        return []
