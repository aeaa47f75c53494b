"""What a flow run's job may be told in Prefect's UI, and how that is read.

`JobVariables` becomes the form of a work pool and of "custom run"; `JobForm` is what is filled in.
"""

from __future__ import annotations

from typing import Any, Literal

from prefect.workers.base import BaseJobConfiguration, BaseVariables
from pydantic import Field

from hpcburst.amounts import read_memory_mb, read_walltime_s
from hpcburst.errors import BurstError
from hpcburst.placement import Placement
from hpcburst.policy.model import Site
from hpcburst.tasks import Shape, read_modules

EarlyEnd = Literal["crash", "reschedule"]

_NUMBER = r"\d+(\.\d+)?\s*"
_SPAN = rf"^\s*({_NUMBER}|({_NUMBER}(d|h|min|m|s)\s*)+|(\d+-)?\d+:\d\d:\d\d\s*)$"
_MEMORY = rf"^\s*{_NUMBER}([KMGTkmgt]i?)?[Bb]?\s*$"

_UNUSED = ("labels", "name")
"""Fields of every worker's form that mean nothing to a batch job of ours."""


class JobVariables(BaseVariables):
    """The form."""

    queue: str = Field(
        default="",
        title="Queue",
        description="Queue (partition) of the flow's own job. Its tasks choose theirs by @needs.",
    )
    walltime: str = Field(
        default="1h",
        title="Walltime",
        pattern=_SPAN,
        description="How long the flow may take, all its tasks included: 90m, 8h, 01:30:00.",
    )
    cores: int = Field(
        default=1,
        title="Cores",
        ge=1,
        description="CPU cores of the flow's own job. One does: tasks run in jobs of their own.",
    )
    memory: str = Field(
        default="2GB",
        title="Memory",
        pattern=_MEMORY,
        description="Memory of the flow's own job: 2GB, 512MiB.",
    )
    gpus: int = Field(
        default=0, title="GPUs", ge=0, description="GPUs of the flow's own job; tasks have theirs."
    )
    env_spec: str = Field(
        default="",
        title="Env",
        description=(
            "Environment file, lock, pixi project, prefix or name of a conda env, as the worker "
            "sees it; it must bring Prefect. Empty: the worker's own Python."
        ),
    )
    modules: list[str] = Field(
        default_factory=list,
        title="Environment modules",
        description="Modules to load before the env, in this order: gcc/13, cuda/12.4.",
    )
    account: str = Field(
        default="",
        title="Account",
        description="Account or project that is charged. Empty: the batch system's default.",
    )
    qos: str = Field(
        default="",
        title="Quality of service",
        description="Quality of service, where the batch system has it. Empty: the default.",
    )
    max_pilots: int = Field(
        default=0,
        title="Most pilots",
        ge=0,
        description="Most jobs at once that the flow's tasks may have. 0: what the site gives.",
    )
    on_early_end: EarlyEnd = Field(
        default="crash",
        title="When the job ends early",
        description=(
            "What follows when the job dies, is preempted or reaches its walltime. crash: the run "
            "is Crashed, with the reason. reschedule: the run goes on in another job; tasks with "
            "persisted results are not run again."
        ),
    )
    max_jobs: int = Field(
        default=5,
        title="Most jobs of one run",
        ge=1,
        description="How many jobs one flow run may have in all, when it is rescheduled.",
    )
    working_dir: str = Field(
        default="",
        title="Working directory",
        description="Folder the flow starts in. Empty: a private folder of the run.",
    )


class JobForm(BaseJobConfiguration):
    """The form as it is filled in for one flow run."""

    queue: str = ""
    walltime: str = "1h"
    cores: int = 1
    memory: str = "2GB"
    gpus: int = 0
    env_spec: str = ""
    modules: list[str] = Field(default_factory=list)
    account: str = ""
    qos: str = ""
    max_pilots: int = 0
    on_early_end: EarlyEnd = "crash"
    max_jobs: int = 5
    working_dir: str = ""

    def shape(self) -> Shape:
        """What the flow's own job asks for.

        Raises:
            hpcburst.errors.RequestError: An amount cannot be read.
        """
        return Shape(
            cores=self.cores,
            memory_mb=read_memory_mb(self.memory),
            gpus=self.gpus,
            walltime_s=read_walltime_s(self.walltime),
            queue=self.queue or None,
            placement=Placement(account=self.account or None, qos=self.qos or None),
        )

    def module_names(self) -> tuple[str, ...]:
        """The modules.

        Raises:
            hpcburst.errors.RequestError: One is no name of a module.
        """
        return read_modules(self.modules)


def base_job_template() -> dict[str, Any]:
    """The template of a new work pool, with the queues of this machine to choose from."""
    variables = JobVariables.model_json_schema()
    for name in ("title", "description"):
        variables.pop(name, None)
    properties = variables["properties"]
    for name in _UNUSED:
        properties.pop(name, None)
    theirs = [name for name in properties if name in BaseVariables.model_fields]
    site = _site_here()
    if site is not None:
        _offer(properties, site)
    last = {name: properties.pop(name) for name in theirs}
    variables["properties"] = {**properties, **last}
    configuration = {
        name: text for name, text in JobForm.json_template().items() if name not in _UNUSED
    }
    return {"job_configuration": configuration, "variables": variables}


def _offer(properties: dict[str, Any], site: Site) -> None:
    names = [queue.name for queue in site.queues]
    properties["queue"]["enum"] = names
    properties["queue"]["default"] = site.default_shape.queue or names[0]
    rows = (
        f"{q.name}: at most {q.max_cores} cores, {q.max_walltime_s / 3600:g} h" for q in site.queues
    )
    properties["queue"]["description"] += f" ({'; '.join(rows)})"


def _site_here() -> Site | None:
    """The site, where there is one: a pool may be made on a machine without a batch system."""
    from hpcburst.policy.load import load_site

    try:
        return load_site()
    except BurstError:
        return None
