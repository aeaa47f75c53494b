"""Snakemake's own test suite for executor plug-ins, once per mode."""

from __future__ import annotations

from snakemake.common.tests import TestWorkflowsLocalStorageBase

from snakemake_executor_plugin_hpcburst import ExecutorSettings


class _Suite(TestWorkflowsLocalStorageBase):
    """A workflow of single jobs and one of group jobs, as Snakemake's authors test executors."""

    mode = ""

    def get_executor(self) -> str:
        return "hpcburst"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(mode=self.mode, max_jobs=2)


class TestDirect(_Suite):
    """Plain rules without a nested Snakemake, and groups in one, pass the suite."""

    __test__ = True
    mode = "direct"


class TestZygote(_Suite):
    """Jobs as forks of a warm Snakemake pass the suite."""

    __test__ = True
    mode = "zygote"


class TestSpawn(_Suite):
    """Jobs as new processes pass the suite."""

    __test__ = True
    mode = "spawn"
