"""A template process small enough to read at once: the protocol of tower.executors.process.template."""

import argparse
import array
import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import threading

from standin.body import run


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int)
    parser.add_argument("--bundle")
    parser.add_argument("--sandbox")
    arguments = parser.parse_args()
    control = socket.socket(fileno=arguments.control_fd)
    if arguments.bundle:
        sys.path.insert(0, arguments.bundle)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running = {}

    def tell(**message):
        control.send(json.dumps(message).encode())

    def reap():
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            tell(event="exited", id=running.pop(pid), status=status)

    tell(event="ready", done=True)
    while True:
        ready, _, _ = select.select([control, wake], [], [])
        if wake in ready:
            os.read(wake, 100)
            reap()
        if control not in ready:
            continue
        data, ancillary, _, _ = control.recvmsg(1 << 18, socket.CMSG_SPACE(6 * 4))
        if not data:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            return
        message = json.loads(data)
        output, said, *groups = array.array("i", ancillary[0][2])
        with contextlib.suppress(Exception):
            importlib.import_module(message["module"])
        if threading.active_count() > 1:
            tell(event="unsafe", id=message["id"], reason="threads")
            for descriptor in (output, said, *groups):
                os.close(descriptor)
            continue
        gate, opener = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: die with the template
            for group in groups:
                os.write(group, b"0")
            if message["limits"]["memory"]:
                resource.setrlimit(resource.RLIMIT_DATA, (message["limits"]["memory"],) * 2)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.read(gate, 1)
            os.closerange(3, said)
            os.closerange(said + 1, 256)
            message["said"] = said
            run(message, arguments.bundle)
        running[pid] = message["id"]
        tell(event="started", id=message["id"], pid=pid)
        os.write(opener, b"x")
        for descriptor in (gate, opener, output, said, *groups):
            os.close(descriptor)


main()
