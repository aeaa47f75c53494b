"""The nested `snakemake` call as data: exact arguments, exact environment. Pure.

Snakemake hands a plug-in one command line for a shell, quoted with Python's `repr`, which a shell
reads differently: `it's $HOME` arrives expanded, backslashes come doubled. We read that text as
it was written and never show it to a shell.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from hpcburst.errors import RequestError

LEAN = ("--max-jobs-per-timespan", "1000/0s", "--scheduler", "greedy")
"""A nested call runs one job: without a rate limit its process does not wait a second to end."""

ONCE = ("--preemptible-rules", "--preemptible-retries", "0")
"""A rule's own `retries:` outdo the `--retries 0` of a nested call: without this it tries again by
itself, with the memory of the first attempt and unseen by the scheduler."""

Target = tuple[str, Mapping[str, str]]
"""A job as Snakemake names it: its rule and its wildcards."""

_ESCAPE = r"\\(?:[\\'nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})"
_NEVER_BARE = r"\\\n\r\0\ud800-\udfff"
_STRING = re.compile(rf"'(?:[^'{_NEVER_BARE}]|{_ESCAPE})*'|\"(?:[^\"{_NEVER_BARE}]|{_ESCAPE})*\"")
_SHELL_WORD = re.compile(r"(?:'[^']*'|\"[^\"]*\"|[^ '\"])+")
_BARE = re.compile(r"[^ ]+")

_SITE_SETTINGS = re.compile(
    r"SLURM_CONF|PBS_(CONF_FILE|EXEC|HOME|DEFAULT|SERVER)|SGE_(ROOT|CELL|CLUSTER_NAME|\w+_PORT)"
)
_JOB_VARIABLES = re.compile(
    r"(SLURM|SLURMD|PBS|SGE|LSB|OAR|PMI|PMI2|PMIX|PALS|COBALT)_\w+|LS_(JOBPID|SUBCWD)"
    r"|_CONDOR_(JOB|MACHINE|SCRATCH|SLOT|CHIRP|REMOTE|CREDS|WRAPPER)\w*|FLUX_(JOB|TASK|KVS)_\w+"
)
_GRID_ENGINE = re.compile(
    r"ARC|ENVIRONMENT|JOB_(ID|NAME|SCRIPT)|N(HOSTS|QUEUES|SLOTS)|PE(_HOSTFILE)?|QUEUE|REQNAME"
    r"|REQUEST|RESTARTED"
)
"""What Grid Engine sets beside SGE_*: common words, so dropped only inside one of its jobs."""


@dataclass(frozen=True, slots=True)
class Call:
    """One nested `snakemake` call.

    Attributes:
        python: The interpreter.
        arguments: What follows `python -m snakemake`.
        precommand: Shell text the user wants to run before it (`--precommand`), or "".
    """

    python: str
    arguments: tuple[str, ...]
    precommand: str = ""

    @property
    def argv(self) -> tuple[str, ...]:
        """The program and its arguments; a shell reads the user's precommand and nothing else."""
        command = (self.python, "-m", "snakemake", *self.arguments)
        if not self.precommand:
            return command
        return ("bash", "-c", f'{self.precommand} && exec "$@"', "bash", *command)


def read_call(text: str, python: str, precommand: str = "", values: Iterable[str] = ()) -> Call:
    """The call behind the command line that Snakemake wrote.

    Args:
        text: The command line.
        python: The interpreter it begins with (written bare, even with spaces in its path).
        precommand: The shell text it begins with before that, or "".
        values: File names that may stand in it. Snakemake leaves a value alone that looks quoted
            already, such as the file name `'a' b`; only who knows the name can read it.

    Raises:
        RequestError: The text is not such a command line.
    """
    lead = f"{precommand} && " if precommand else ""
    lead += f"{python} -m snakemake "
    if not text.startswith(lead):
        raise RequestError(
            "A nested snakemake command was to be read",
            f"it does not begin as it should: {text[:120]!r}",
            "this release of Snakemake may be too new for this release of hpcburst",
        )
    odd = [value for value in values if _looks_quoted(value)]
    return Call(python, read_words(text[len(lead) :], as_they_stand=odd), precommand)


def read_words(text: str, as_they_stand: Iterable[str] = ()) -> tuple[str, ...]:
    """The words of a command line whose strings are quoted with `repr` and paths with `shlex`.

    The two differ only for text with a backslash or with both quotes; what reads as `repr` writes
    it is taken as that.

    Args:
        text: The command line.
        as_they_stand: Words that may stand in it without any quotes around them.
    """
    candidates = sorted(as_they_stand, key=len, reverse=True)
    words, at = [], 0
    while (at := _skip_space(text, at)) < len(text):
        word, at = _read_word(text, at, candidates)
        words.append(word)
    return tuple(words)


def check_targets(asked: Sequence[Target], carried: Sequence[Target]) -> None:
    """Check that a nested call will know its jobs by the same wildcards.

    Snakemake 9.27 writes them as `name=value,...` and, reading that, strips quotes from the ends of
    values and splits at commas: the job would wait for files that never were.

    Args:
        asked: Rule name and wildcards of each job.
        carried: The same after Snakemake wrote and read them; empty if it cannot read it.

    Raises:
        RequestError: They differ.
    """
    for job, read in zip_longest(asked, carried[: len(asked)]):
        if read is None or (job[0], dict(job[1])) != (read[0], dict(read[1])):
            raise RequestError(
                f"Rule {job[0]} is to run with the wildcards {dict(job[1])!r}",
                "a comma in a value, or a quote at its begin or end, is lost when Snakemake hands "
                "a job to a cluster",
                "rename the files, or make it a localrule",
            )


def job_environment(environ: Mapping[str, str], declared: Mapping[str, str]) -> dict[str, str]:
    """The environment of a nested call: the driver's, without what belongs to the driver alone.

    Left out are the variables of the batch job the driver itself may run in (a rule must not take
    them for its own) and `SNAKEMAKE_PROFILE`, which would make the nested call submit jobs again.

    Args:
        environ: The driver's environment.
        declared: What the workflow declares (`envvars:`, `--envvars`, storage secrets).
    """
    ours = "SGE_TASK_ID" in environ or "SGE_O_HOME" in environ
    kept = {
        name: value
        for name, value in environ.items()
        if name != "SNAKEMAKE_PROFILE" and not _is_of_the_job(name, in_grid_engine=ours)
    }
    return {**kept, **declared}


def _is_of_the_job(name: str, *, in_grid_engine: bool) -> bool:
    if in_grid_engine and _GRID_ENGINE.fullmatch(name):
        return True
    return bool(_JOB_VARIABLES.fullmatch(name)) and not _SITE_SETTINGS.fullmatch(name)


def _looks_quoted(value: str) -> bool:
    return re.match(r"^['\"].+['\"]", value) is not None


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] == " ":
        at += 1
    return at


def _read_word(text: str, at: int, candidates: list[str]) -> tuple[str, int]:
    for candidate in candidates:
        if text.startswith(candidate, at) and _ends_word(text, at + len(candidate)):
            return candidate, at + len(candidate)
    string = _STRING.match(text, at)
    if string and _ends_word(text, string.end()) and _is_repr(string[0]):
        return str(ast.literal_eval(string[0])), string.end()
    word = _SHELL_WORD.match(text, at) if text[at] in "'\"" else None
    if word and _ends_word(text, word.end()):
        return "".join(shlex.split(word[0])), word.end()
    bare = _BARE.match(text, at)
    assert bare is not None  # noqa: S101 - the caller stands on something that is not a space
    return bare[0], bare.end()


def _ends_word(text: str, at: int) -> bool:
    return at == len(text) or text[at] == " "


def _is_repr(text: str) -> bool:
    return repr(ast.literal_eval(text)) == text
