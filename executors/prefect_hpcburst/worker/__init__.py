"""The worker type `hpcburst`: each flow run is a batch job.

`form` is what the UI asks for, `records` what is kept of each job, `tickets` the private file that
takes secrets to it, `submission` the job itself, `verdict` what follows from how it ends (pure),
`watch` the one look at all jobs, `worker` the Prefect worker.

Prefect imports this package where worker types are wanted (entry point `prefect.collections`), and
only there: flows do not pay for it.
"""

from prefect_hpcburst.worker.worker import BurstWorker

__all__ = ["BurstWorker"]
