"""What can go wrong, by whose fault: the site's, the request's, the env's or the run's.

Every error is an answer. It says what was asked, what was found and what to do next, and carries
the job id, host and log as fields, so that front ends can show them in their own words. All of them
survive pickling, because they travel from a pilot to the driver.
"""

from __future__ import annotations

from typing import Any

TAIL_LINES = 20
"""Lines of output an error carries at most: enough to see the cause, too few to flood a log."""


class BurstError(Exception):
    """The root of all errors of hpcburst.

    Args:
        asked: What was asked for, as a phrase that begins the sentence.
        found: What was found instead.
        todo: What the reader can do about it.
        job_id: The batch job this happened in.
        host: The node it happened on.
        log: Path of the log that tells more.
        tail: The last lines of output, kept to `TAIL_LINES`.
    """

    transient = False
    """True when the same request may succeed if it is simply made again."""

    def __init__(
        self,
        asked: str,
        found: str = "",
        todo: str = "",
        *,
        job_id: str | None = None,
        host: str | None = None,
        log: str | None = None,
        tail: str = "",
    ) -> None:
        super().__init__(_headline(asked, found, todo))
        self.asked = asked
        self.found = found
        self.todo = todo
        self.job_id = job_id
        self.host = host
        self.log = log
        self.tail = "\n".join(tail.strip().splitlines()[-TAIL_LINES:])

    def __str__(self) -> str:
        where = [
            f"{label} {value}"
            for label, value in (("job", self.job_id), ("host", self.host), ("log", self.log))
            if value
        ]
        text = _headline(self.asked, self.found, self.todo)
        if where:
            text += f" [{', '.join(where)}]"
        if self.tail:
            text += "\n--- last output ---\n" + self.tail
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), dict(self.__dict__))


class SiteError(BurstError):
    """The machine, the batch system or its policy stands in the way."""


class SubmitError(SiteError):
    """The batch system refused a job, or jobs die before their pilot says hello."""


class RequestError(BurstError, ValueError):
    """The request itself cannot be granted; nothing was queued."""


class EnvError(BurstError):
    """The env cannot be read, solved or built."""


class RunError(BurstError, RuntimeError):
    """A task began, and did not end well."""


class BodyError(RunError):
    """The body raised an exception whose type cannot be rebuilt here.

    Attributes:
        kind: Name of the exception's type in the env.
        traceback: The traceback text from the env.
    """

    kind = ""
    traceback = ""


class BodyDied(RunError):
    """The process that ran the body ended in the middle of it (crash, kill, out of memory)."""


class CommandFailed(RunError):
    """A command did not start, or ended with a status that does not mean success.

    Attributes:
        returncode: Its exit status; 127 when there is no such program.
        stdout: The end of what it wrote to stdout.
        stderr: The end of what it wrote to stderr.
    """

    returncode = 0
    stdout = ""
    stderr = ""


class WalltimeReached(RunError, TimeoutError):
    """The body ran longer than the task's time limit and was stopped."""


class PilotLost(RunError):
    """The pilot went away with the task, again and again; the keeper gave up sending it."""

    transient = True


class Cancelled(RunError):
    """The task was withdrawn before it ended."""


def _headline(asked: str, *parts: str) -> str:
    # What was asked may begin with a name of the user's, which stays as it is.
    later = [part[:1].upper() + part[1:] for part in parts if part]
    return " ".join(_sentence(part) for part in (asked, *later) if part)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?", ":")) else text + "."


def _rebuild(kind: type[BurstError], fields: dict[str, Any]) -> BurstError:
    error = kind(fields["asked"], fields["found"], fields["todo"])
    error.__dict__.update(fields)
    return error
