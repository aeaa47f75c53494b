"""What a user sees of a run beside Snakemake's own log: a live line, and what rules used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TextIO

from hpcburst.results import Outcome
from hpcburst.tasks import Needs
from snakemake_executor_plugin_hpcburst.efficiency import Ledger
from snakemake_executor_plugin_hpcburst.live import LiveLine, PilotLife, describe
from snakemake_executor_plugin_hpcburst.logs import RunLogs
from snakemake_executor_plugin_hpcburst.settings import ExecutorSettings


class RunSeen:
    """One run, as its user sees it.

    Args:
        logger: Snakemake's.
        logs: The run's log files.
        settings: What of it the user wants.
        jobs: How many jobs are under way.
        pilots: The lives of all pilots so far.
        stream: Where the live line goes; stderr if it is None.
    """

    def __init__(
        self,
        logger: Any,
        logs: RunLogs,
        settings: ExecutorSettings,
        *,
        jobs: Callable[[], int],
        pilots: Callable[[], Iterable[PilotLife]],
        stream: TextIO | None = None,
    ) -> None:
        self._logger, self._logs, self._settings = logger, logs, settings
        self._jobs, self._pilots = jobs, pilots
        self._ledger = Ledger()
        self._line = LiveLine(self._text, logger, stream)
        self._begun = False

    def begin(self) -> None:
        """Say where logs go and sweep old ones; the first job of the run begins. Idempotent."""
        if self._begun:
            return
        self._begun = True
        if self._settings.keep_logs_days:
            self._logs.sweep(self._settings.keep_logs_days)
        kept = "all kept" if self._logs.keep else "kept if they fail"
        text = f"Logs of jobs ({kept}): {self._logs.folder}"
        self._logger.info(text)  # Snakemake's formatter takes the text as it is
        self._line.start()

    def note(self, rule: str, needs: Needs, future: Future[Outcome]) -> None:
        """Count a job that ended, if it ever ran."""
        if not future.cancelled() and future.exception() is None:
            self._ledger.note(rule, needs, future.result())

    def close(self) -> None:
        """Take the live line away, show the table and keep it. Idempotent."""
        self._line.close()
        ledger, self._ledger = self._ledger, Ledger()
        if not ledger.rules or self._settings.no_efficiency:
            return
        place = ""
        with suppress(OSError):  # a full disk must not hide the table
            place = f" (kept in {self._logs.keep_table(ledger.csv())})"
        table = ledger.text(self._settings.efficiency_threshold)
        text = f"What rules used of what they asked for{place}:\n{table}"
        self._logger.info(text)

    def _text(self) -> str:
        jobs = self._jobs()
        try:
            return describe(jobs, self._pilots(), time.time()) if jobs else ""
        except RuntimeError:  # a pilot came while we counted; the next second is soon enough
            return ""
