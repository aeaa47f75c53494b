"""Snakemake executor plug-in `hpcburst`: jobs of a workflow as tasks on short batch jobs.

Snakemake imports every installed plug-in in every process it starts, whatever `--executor` says. So
this package imports the standard library, Snakemake's interface and plain data, and nothing more.
"""

from __future__ import annotations

from snakemake_interface_executor_plugins.settings import CommonSettings

from snakemake_executor_plugin_hpcburst.executor import Executor
from snakemake_executor_plugin_hpcburst.settings import ExecutorSettings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_envvar_declarations_to_cmd=False,  # they travel as data
    auto_deploy_default_storage_provider=False,  # pilots run the driver's own Python
)
