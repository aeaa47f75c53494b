"""A plain shell rule as one command, the way Snakemake's own local executor runs it.

Nothing nested is needed for such a rule: the main process prepares the job and looks after its
outputs anyway. What is left is a shell that reads the rule's command in the right folder with the
right variables; that is what a pilot gets. Every job for which this would differ is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from string import Formatter
from typing import Any

KNOWN_MAJORS = ("9",)
"""Releases of Snakemake of which we know how the local executor runs a shell command."""

MAX_ARGV_BYTES = 1 << 19
"""Linux takes more, but shares it with the environment."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Variables in which Snakemake tells a command's libraries how many threads they may start."""

LOADED_BY_OTHERS = ("R_LIBS", "PYTHONPATH", "PERLLIB", "PERL5LIB")
"""Variables that Snakemake takes from a command in a conda env: they bring foreign libraries."""

BEGIN = """\
export TMP="$TMPDIR" TEMP="$TMPDIR" TEMPDIR="$TMPDIR"
left=$1 && shift
until [ "$1" = run ]; do
  path=${1#*:}
  case $1 in
  wait:*)
    until [ -e "$path" ]; do
      [ "$left" -gt 0 ] || { printf 'This node does not see the file %s.\\n' "$path" >&2; exit 66; }
      left=$((left - 1)) && sleep 1
    done ;;
  gone:*) if [ -e "$path" ] || [ -L "$path" ]; then rm -f -- "$path"; fi ;;
  tree:*) if [ -e "$path" ] || [ -L "$path" ]; then rm -rf -- "$path"; fi ;;
  esac
  shift
done
shift && exec "$@"
"""
"""What the node does before the command, all file names being arguments: wait until it sees what
other nodes wrote, and clear what is left of a try that was lost with its pilot."""

_OWN_NAMES = frozenset(
    {"input", "output", "params", "wildcards", "threads", "resources", "log", "rule", "jobid"}
)
"""What a command's `{...}` may begin with and means the same in Snakemake's job and rule."""

UNFIT = "its command holds what only the node can tell, or is too long"
"""Why there is no `command_line` for a job without an `obstacle`."""

_UNKNOWN_HERE = "<TBD>"
"""Stands in a command for what only the node can tell."""

_LONGEST_COMMAND = 16 * 4096 - 1
"""Longer commands come in a file, says Snakemake."""


def obstacle(job: Any) -> str | None:
    """Why a job must run in a nested Snakemake; None if its `command_line` alone is exact."""
    return next((reason for reason, holds in _OBSTACLES if holds(job)), None)


def is_known_release() -> bool:
    """Whether this is a Snakemake whose local executor we know."""
    from snakemake.common import __version__ as release

    return release.split(".", maxsplit=1)[0] in KNOWN_MAJORS


def command_line(job: Any) -> tuple[str, ...] | None:
    """The program and arguments that run a job without an `obstacle`.

    Returns:
        A shell that prepares the node and becomes the rule's shell; None when the command holds
        what only the node can tell, or is too long.
    """
    text = shell_text(job)
    before = [*_awaited(job), *_cleared(job)]
    shell = (_executable(job), "-c", text)
    patience_s = job.dag.workflow.execution_settings.latency_wait
    argv = ("/bin/sh", "-c", BEGIN, "sh", str(int(patience_s)), *before, "run", *shell)
    return None if _UNKNOWN_HERE in text or _is_too_long(text, argv) else argv


def shell_text(job: Any) -> str:
    """What the rule's shell reads: the user's prefix, env modules, conda env, and the command."""
    from snakemake.shell import shell

    executable = job.resources.get("shell_exec") or shell.get_executable()
    prefix, suffix = shell._get_process_prefix(executable), shell._process_suffix  # noqa: SLF001
    text = f"{prefix} {job.shellcmd} {suffix}".strip()
    if _deploys(job, "ENV_MODULES") and job.env_modules:
        text = job.env_modules.shellcmd(text)
    if _uses_conda(job):
        text = _conda(job).shellcmd(job.conda_env.address, text)
    return text


def variables(job: Any, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a rule's shell, from that of a nested call."""
    from snakemake.shell import shell

    dropped: tuple[str, ...] = ()
    if _uses_conda(job) and shell.conda_block_conflicting_envvars:
        dropped = LOADED_BY_OTHERS
    kept = {name: value for name, value in environ.items() if name not in dropped}
    return {**kept, **dict.fromkeys(THREAD_VARIABLES, str(job.threads))}


def _is_too_long(text: str, argv: Iterable[str]) -> bool:
    size = sum(len(os.fsencode(word)) + 1 for word in argv)
    return size > MAX_ARGV_BYTES or len(text.replace("'", r"'\''")) + 2 > _LONGEST_COMMAND


def _executable(job: Any) -> str:
    from snakemake.shell import shell

    return str(job.resources.get("shell_exec") or shell.get_executable() or "/bin/sh")


def _awaited(job: Any) -> Iterator[str]:
    """Inputs and the conda env, and the folders that the main process made for outputs."""
    folders = {os.path.dirname(path) for path in (*job.output, *job.log)}  # noqa: PTH120 - text
    for path in dict.fromkeys([*map(str, job.get_wait_for_files()), *sorted(folders - {""})]):
        yield f"wait:{path}"


def _cleared(job: Any) -> Iterator[str]:
    for path in (*job.output, *job.log):
        if str(path) != os.devnull:
            yield f"{'tree' if path.is_directory else 'gone'}:{path}"


def _deploys(job: Any, method: str) -> bool:
    chosen = job.dag.workflow.deployment_settings.deployment_method
    return any(one.name == method for one in chosen)


def _uses_conda(job: Any) -> bool:
    return _deploys(job, "CONDA") and bool(job.conda_env)


def _conda(job: Any) -> Any:
    from snakemake.deployment.conda import Conda

    return Conda(container_img=None, prefix_path=job.dag.workflow.conda_base_path)


def _has_own_temporary_folder(job: Any) -> bool:
    return getattr(job.rule.resources.get("tmpdir"), "raw", None) != "system_tmpdir"


def _is_cached(job: Any) -> bool:
    asked = job.dag.workflow.workflow_settings.cache
    return asked is not None and bool(getattr(job.rule.cache, "output", job.rule.cache))


def _has_flag(*names: str) -> Callable[[Any], bool]:
    def holds(job: Any) -> bool:
        files = (*job.input, *job.output)
        return any(name in getattr(path, "flags", ()) for path in files for name in names)

    return holds


def _is_in_storage(job: Any) -> bool:
    return any(path.is_storage for path in (*job.input, *job.output, *job.log))


def _means_something_else(job: Any) -> bool:
    """Whether a `{...}` of the command would be another value in the function of the rule.

    That function knows names of its own, and the globals of the module its rule comes from.
    """
    of_rule, of_main = job.rule.run_func.__globals__, job.rule.workflow.globals
    hidden = job.rule.run_func.__code__.co_varnames
    for root in _roots(job.rule.shellcmd):
        same = root not in hidden and root in of_main and of_rule.get(root) is of_main[root]
        if root not in _OWN_NAMES and (not same or root in ("name", "rulename")):
            return True
    return False


def _roots(pattern: str) -> set[str]:
    """The names that a format text's fields begin with; "" for one that we do not look into."""
    fields = [(name, spec) for _, name, spec, _ in Formatter().parse(pattern) if name is not None]
    names = {name.partition(".")[0].partition("[")[0] for name, _ in fields}
    return names | ({""} if any("{" in (spec or "") for _, spec in fields) else set())


_OBSTACLES: tuple[tuple[str, Callable[[Any], object]], ...] = (
    ("it is a group job", lambda job: job.is_group()),
    ("it is no shell rule", lambda job: not job.is_shell or job.rule.run_func is None),
    ("its benchmark is measured where it runs", lambda job: job.benchmark is not None),
    ("it has a shadow folder", lambda job: job.is_shadow),
    ("it runs in a container", lambda job: job.container_img or job.is_containerized),
    ("it is handed over to another system", lambda job: job.rule.is_handover),
    ("it is a template", lambda job: job.is_template_engine),
    ("its result is kept between workflows", _is_cached),
    ("it has files in storage", _is_in_storage),
    ("it uses a pipe, a service or updates a file", _has_flag("pipe", "service", "update")),
    ("it has a folder of its own for temporary files", _has_own_temporary_folder),
    ("its command means something else inside the rule", _means_something_else),
)
