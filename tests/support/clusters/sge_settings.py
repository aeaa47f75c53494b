"""What a private Grid Engine is told when it is set up: texts in the formats of its own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from support.clusters.cluster import Size

LIBRARY = Path("/usr/lib/gridengine")
SHARED = Path("/usr/share/gridengine")

GLOBAL = {
    "mailer": "/bin/true",
    "administrator_mail": "none",
    "min_uid": "0",  # root may submit
    "min_gid": "0",
    "load_report_time": "00:00:02",
    "max_unheard": "00:00:20",  # a node that died is found out after this
    "execd_params": "ENABLE_ADDGRP_KILL=true",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 "
    "accounting_flush_time=00:00:00 joblog=false sharelog=00:00:00",
}

SCHEDULER = {  # looks every second, so that tests wait for nothing else
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "max_reservation": "16",
    "default_duration": "0:10:0",
    "job_load_adjustments": "NONE",
    "load_adjustment_decay_time": "0:0:0",
    "load_formula": "-slots",  # jobs are spread over the nodes
}

MEMORY = {"consumable": "YES", "default": "512M"}
"""h_vmem is booked for each slot, as on most sites."""

QUEUES = {
    "short.q": {"seq_no": "0", "h_rt": "00:10:00"},
    "batch.q": {"seq_no": "10", "h_rt": "INFINITY"},
}

QUEUE = {
    "hostlist": "@allhosts",
    "load_thresholds": "NONE",  # this machine's load is no node's
    "pe_list": "smp",
    "min_cpu_interval": "00:00:02",
    "notify": "00:00:10",
    "shell": "/bin/bash",
    "shell_start_mode": "unix_behavior",
}

NODE = {
    "load_scaling": "NONE",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "projects": "NONE",
    "xprojects": "NONE",
    "usage_scaling": "NONE",
    "report_variables": "NONE",
}


def changed(text: str, changes: Mapping[str, str]) -> str:
    """A settings text with other values; a name that it has not is added."""
    left = dict(changes)
    lines = []
    for line in text.splitlines():
        name = line.split(None, 1)[0] if line.strip() else ""
        lines.append(f"{name} {left.pop(name)}" if name in left else line)
    return rendered_lines(lines) + rendered(left)


def rendered(settings: Mapping[str, str]) -> str:
    """A settings text of these names and values."""
    return rendered_lines([f"{name} {value}" for name, value in settings.items()])


def rendered_lines(lines: list[str]) -> str:
    """Lines as a text."""
    return "".join(f"{line}\n" for line in lines)


def bootstrap(root: Path, spool: Path) -> str:
    """What the daemons read first; all is kept in plain files, and belongs to who started it."""
    return rendered(
        {
            "admin_user": "none",
            "default_domain": "none",
            "ignore_fqdn": "true",
            "spooling_method": "classic",
            "spooling_lib": "libspoolc",
            "spooling_params": spooling(root, spool),
            "binary_path": str(LIBRARY),
            "qmaster_spool_dir": str(spool),
            "security_mode": "none",
            "listener_threads": "2",
            "worker_threads": "2",
            "scheduler_threads": "1",
        }
    )


def spooling(root: Path, spool: Path) -> str:
    """Where settings and jobs are kept, in the words of the spooling tools."""
    return f"{root}/default/common;{spool}"


def node(name: str, size: Size) -> str:
    """What a node has."""
    has = {"hostname": name, "complex_values": f"slots={size.cores},h_vmem={size.memory_mb}M"}
    return rendered({**NODE, **has})


def queue(name: str, template: str, size: Size) -> str:
    """A queue over all nodes."""
    own = {"qname": name, "slots": str(size.cores)}
    return changed(template, {**QUEUE, **QUEUES[name], **own})
