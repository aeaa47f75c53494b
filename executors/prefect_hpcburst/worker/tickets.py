"""The ticket of a job: a private file with the flow run's variables, secrets among them.

The job that takes it runs the flow. A job that finds none ends at once: it was withdrawn, or the
batch system was asked twice because it did not answer the first time. What a job's script says is
known to the batch system; what the ticket says is not.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hpcburst.comms.exports import exports
from hpcburst.comms.staging import write_private


def write_ticket(folder: Path, before: str, variables: Mapping[str, str], after: str) -> Path:
    """Write a ticket; returns its path.

    Args:
        folder: Where; private.
        before: Shell text that comes first (an env's activation).
        variables: The variables.
        after: Shell text that comes last.

    Raises:
        hpcburst.errors.RequestError: A name is none that a shell takes.
    """
    ticket = folder / f"ticket-{secrets.token_hex(6)}"
    write_private(ticket, f"{before}\n{exports(variables)}\n{after}\n".encode())
    return ticket


def taking(ticket: Path, job_id_variable: str) -> str:
    """Shell text that takes a ticket, or ends the job when there is none.

    `mv` is what makes it certain that one job alone has it.

    Args:
        ticket: The ticket.
        job_id_variable: Variable in which a job finds its own id; "" if there is none.
    """
    old, taken, by = (shlex.quote(str(path)) for path in (ticket, _taken(ticket), _by(ticket)))
    job_id = f'"${{{job_id_variable}-}}"' if job_id_variable else "''"
    return (
        f"mv -- {old} {taken} 2>/dev/null || exit 0\n"
        f"umask 077\nprintf '%s\\n' {job_id} >{by}\n"
        f". {taken} || exit 1\nrm -f -- {taken}"
    )


def tear(ticket: Path) -> None:
    """See that no job takes it any more. Idempotent."""
    for path in (ticket, _taken(ticket), _by(ticket)):
        path.unlink(missing_ok=True)


def taken_by(ticket: Path) -> str | None:
    """Id of the job that has taken it ("" if that job does not know its own); None if none has."""
    with suppress(OSError):
        return _by(ticket).read_text().strip()
    return None


def taken_at(ticket: Path) -> float | None:
    """When it was taken, in seconds since the epoch; None if it was not."""
    with suppress(OSError):
        return _by(ticket).stat().st_mtime
    return None


def _taken(ticket: Path) -> Path:
    return ticket.with_name(f"{ticket.name}.taken")


def _by(ticket: Path) -> Path:
    return ticket.with_name(f"{ticket.name}.by")
