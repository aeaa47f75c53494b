"""What a task is told that cannot be run, or not any more: whose fault it is and what to do."""

from __future__ import annotations

from hpcburst.errors import Cancelled, PilotLost, RequestError
from hpcburst.pools.record import PilotRecord
from hpcburst.pools.situation import Plan
from hpcburst.pools.tickets import Ticket


def closed(ticket: Ticket, found: str) -> Cancelled:
    """The run is over."""
    return Cancelled(f"Task {ticket.burst.name!r} was queued", found)


def lost_too_often(ticket: Ticket, limit: int, last: PilotRecord, log: str) -> PilotLost:
    """Every pilot that got it went away with it."""
    return PilotLost(
        f"Task {ticket.burst.name!r} was handed to {limit} pilots",
        "each went away with it (ended by the batch system, its walltime or the task)",
        "ask for more memory or walltime; the log of the last job may tell more",
        job_id=last.job_id,
        host=last.host,
        log=log,
    )


def never_allowed(ticket: Ticket, decided: Plan) -> RequestError:
    """Nothing is held and nothing may be asked for: no waiting would ever change that."""
    return RequestError(
        f"Task {ticket.burst.name!r} was queued ({ticket.shape})",
        "; ".join(decided.why.values()),
        "raise the limit that is named (budget, max-cores), or ask for less",
    )
