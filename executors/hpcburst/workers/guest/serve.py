"""The guest's loop: hello, then one call after the other until the pilot hangs up or dies."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import sys
import threading
import time

from .frames import Channel
from .native import die_with

LINGER_S = 50e-6
"""So long a guest stays awake after a call: to be woken costs a short call more than all else."""


def serve(sock: int, lifeline: int, parent: int) -> None:
    """Answer calls until the other end hangs up.

    Args:
        sock: Descriptor of our end of the pair of sockets.
        lifeline: Descriptor of a pipe that ends when the pilot ends, however it ends.
        parent: Process id of the pilot.
    """
    faulthandler.enable()
    for descriptor in (sock, lifeline):
        os.set_inheritable(descriptor, False)
    channel = Channel(socket.socket(fileno=sock))
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    token = os.urandom(4).hex()
    channel.send({"hello": list(sys.version_info[:3]), "prefix": sys.prefix, "mark": token})
    die_with(parent)
    _serve(channel, token)


def _serve(channel: Channel, token: str) -> None:
    from . import logs, streams
    from .calls import Caller

    marks = streams.Marks(token)
    caller = Caller(marks)

    def send(level: str, text: str, at: float) -> None:
        record = {"log": level, "text": text, "at": at}
        with caller.undisturbed():
            marks.log(lambda number: channel.send(dict(record, mark=number)))

    logs.install(send)
    streams.install(marks)
    signal.signal(signal.SIGINT, caller.interrupt)
    line = select.poll()
    line.register(channel.fileno(), select.POLLIN)
    while True:
        _linger(line)
        try:
            message, parts = channel.recv()
        except (EOFError, OSError):
            return
        reply, out = caller.answer(message, parts)
        del parts  # the arguments' memory goes back before the next call
        try:
            channel.send_back(reply, out)
        except OSError:
            return
        del out, reply


def _linger(line: select.poll) -> None:
    """Look whether the next call is there already, and let others run, before going to sleep."""
    until = time.perf_counter() + LINGER_S
    while not line.poll(0) and time.perf_counter() < until:
        os.sched_yield()


def _watch(lifeline: int) -> None:
    """Take the body's own children along when the pilot is gone."""
    os.read(lifeline, 1)
    os.killpg(0, signal.SIGKILL)
    os._exit(70)
