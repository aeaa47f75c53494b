"""What the stranger does. A program of the standard library; prints what it brought as JSON.

It is read from standard input and runs as another uid (`support.stranger`), so it imports nothing
of the suite.
"""

import http.client
import json
import os
import signal
import socket
import ssl
import stat
import sys
from contextlib import suppress

ANSWER_S = 3.0

WELL = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n"
    b'{"status": "READY"}'
)


def search(*roots: str) -> dict:
    """Go wherever the doors are open below some roots; say what could be read and changed."""
    brought: dict = {"listed": [], "read": [], "changed": []}
    todo = list(roots)
    while todo:
        path = todo.pop()
        try:
            kind = os.lstat(path).st_mode
        except OSError:
            continue
        if stat.S_ISDIR(kind):
            todo += _enter(path, brought)
        elif stat.S_ISREG(kind):
            _open(path, brought)
        elif stat.S_ISSOCK(kind) and connect(path)["connected"]:
            brought["changed"].append(path)
    return brought


def _enter(path: str, brought: dict) -> list:
    planted = os.path.join(path, ".planted-by-a-stranger")
    with suppress(OSError):
        os.close(os.open(planted, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        os.unlink(planted)
        if not os.stat(path).st_mode & stat.S_ISVTX:
            brought["changed"].append(path)
    try:
        names = os.listdir(path)
    except OSError:
        return []
    brought["listed"].append(path)
    return [os.path.join(path, name) for name in names]


def _open(path: str, brought: dict) -> None:
    for flags, verb in ((os.O_RDONLY, "read"), (os.O_WRONLY | os.O_APPEND, "changed")):
        with suppress(OSError):
            os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW))
            brought[verb].append(path)


def read(*paths: str) -> dict:
    """Files whose exact names were guessed: which of them can be read, written or put away."""
    brought: dict = {"read": [], "changed": []}
    for path in paths:
        _open(path, brought)
        with suppress(OSError):
            os.rename(path, path + ".stolen")
            brought["changed"].append(path)
    return brought


def processes(*pids: str) -> dict:
    """What the kernel shows of processes: their arguments, and whatever else it should not."""
    brought: dict = {"argv": [], "open": []}
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            brought["argv"].append(file.read().decode(errors="replace"))
        for name in ("environ", "mem", "maps"):
            with suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
                file.read(1)
                brought["open"].append(f"{pid}/{name}")
        for name in ("fd", "map_files", "cwd", "root"):
            with suppress(OSError):
                os.listdir(f"/proc/{pid}/{name}/")
                brought["open"].append(f"{pid}/{name}")
        with suppress(OSError):
            os.kill(int(pid), signal.SIGCONT)
            brought["open"].append(f"{pid}/signal")
    return brought


def say(host: str, port: str, *messages: str) -> dict:
    """Send bytes (in hex) over plain TCP; what is answered, in hex."""
    return _talk(_dial(host, port), messages)


def say_tls(host: str, port: str, certificate: str, *messages: str) -> dict:
    """The same over TLS, with a certificate of one's own ("": none)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate)
    plain = _dial(host, port)
    try:
        return _talk(context.wrap_socket(plain), messages)
    except OSError as error:
        return {"answer": "", "error": str(error)}


def _dial(host: str, port: str) -> socket.socket:
    return socket.create_connection((host, int(port)), timeout=ANSWER_S)


def _talk(line: socket.socket, messages: tuple) -> dict:
    heard, error = b"", ""
    line.settimeout(ANSWER_S)
    try:
        for message in messages:
            line.sendall(bytes.fromhex(message))
        while piece := line.recv(65536):
            heard += piece
    except OSError as failure:
        error = str(failure) or type(failure).__name__
    finally:
        line.close()
    return {"answer": heard.hex(), "error": error}


def ask(host: str, port: str, *paths: str) -> list:
    """Ask a web server; the status of each answer, 0 where there is none."""
    return [_status(http.client.HTTPConnection(host, int(port), timeout=ANSWER_S), *_words(path))
            for path in paths]  # fmt: skip


def _words(path: str) -> tuple:
    method, _, rest = path.partition(" ")
    place, _, login = rest.partition(" ")
    return method, place, login


def _status(line: http.client.HTTPConnection, method: str, place: str, login: str = "") -> int:
    headers = {"Authorization": login} if login else {}
    try:
        line.request(method, place, "{}" if method == "POST" else None, headers)
        return line.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        line.close()


def connect(path: str) -> dict:
    """Connect to a unix socket."""
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(ANSWER_S)
    try:
        line.connect(path)
    except OSError as error:
        return {"connected": False, "error": error.errno}
    finally:
        line.close()
    return {"connected": True, "error": 0}


def set_trap(kind: str, path: str, target: str = "") -> dict:
    """Be first at a name that somebody else will want."""
    if kind == "folder":
        os.mkdir(path)
        os.chmod(path, 0o777)
    elif kind == "link":
        os.symlink(target, path)
    elif kind == "fifo":
        os.mkfifo(path, 0o666)
        os.chmod(path, 0o666)
    else:
        with open(path, "w") as file:
            file.write("mine\n")
        os.chmod(path, 0o666)
    return {"set": path}


def swap(path: str) -> dict:
    """Put a folder of somebody else's away, and one of one's own in its place."""
    try:
        os.rename(path, path + ".stolen")
        os.mkdir(path, 0o777)
    except OSError as error:
        return {"swapped": False, "error": error.errno}
    return {"swapped": True, "error": 0}


def squat(host: str, port: str, notebook: str) -> None:
    """Be a web server on somebody's port; note what callers say, and answer that all is well."""
    server = socket.create_server((host, int(port)))
    print("ready", flush=True)
    with open(notebook, "ab", buffering=0) as notes:
        while True:
            line, _ = server.accept()
            line.settimeout(ANSWER_S)
            with suppress(OSError), line:
                notes.write(line.recv(65536) + b"\n")
                line.sendall(WELL)


ATTACKS = {
    each.__name__: each
    for each in (search, read, processes, say, say_tls, ask, connect, set_trap, swap, squat)
}

if __name__ == "__main__":
    os.umask(0)
    print(json.dumps(ATTACKS[sys.argv[1]](*sys.argv[2:])))
