"""Variables as shell text: the one form in which they reach jobs and users' shells."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from hpcburst.errors import RequestError

SERVER_FILE = "HPCBURST_PREFECT_SERVER"
"""Variable that names the shell file in which `hpcburst prefect up` says where its server is."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def exports(variables: Mapping[str, str]) -> str:
    """Shell text that sets variables; values are data whatever is in them.

    >>> print(exports({"GREETING": "it's $HOME"}))
    export GREETING='it'"'"'s $HOME'

    Raises:
        RequestError: A name is none that a shell takes.
    """
    for name in variables:
        if not _NAME.fullmatch(name):
            raise RequestError(
                f"The variable {name[:80]!r} was to be set in a job",
                "that is no name of a variable",
                "check the variables of the work pool and of the deployment",
            )
    return "\n".join(f"export {name}={shlex.quote(text)}" for name, text in variables.items())
