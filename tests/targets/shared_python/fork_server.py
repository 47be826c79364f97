"""Imports modules once, and then forks for each target that needs them: importing takes longer than most tests.

Usage: fork_server.py MODULE...

Standard input is a socket. Each message on it is the command line of a target (a JSON list, its script first) with four
descriptors: the target's standard input, output and error, and where to tell its process id and, at its end, its wait status
(two numbers of four bytes). The target is what the same command line makes of a new interpreter: its main thread alone, in a
process group of its own, with none of the server's descriptors and the threads that its libraries start when they are
imported. It ends as any other does. Only `/proc/PID/cmdline` is the server's.
"""

import importlib
import json
import os
import select
import socket
import struct
import sys
import types
import warnings

LONGEST_MESSAGE = 65536
DESCRIPTORS = struct.Struct("4i")
NUMBER = struct.Struct("=i")


def receive(control):
    """The next message and its descriptors."""
    message, ancillary, _, _ = control.recvmsg(LONGEST_MESSAGE, socket.CMSG_SPACE(DESCRIPTORS.size))
    for _, _, data in ancillary:
        return message, DESCRIPTORS.unpack(data)
    return message, ()


def tell(told, number):
    try:
        os.write(told, NUMBER.pack(number))
    except BrokenPipeError:
        pass  # Whoever asked for the target has gone.


def fork():
    with warnings.catch_warnings():
        # That there are other threads. Those of the libraries here know what a fork is.
        warnings.simplefilter("ignore")
        return os.fork()


def serve(control):
    """Forks for each message. Returns in the forked process, with its command line; in the server only at the end: `None`."""
    running = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready in running:
                pid, told = running.pop(ready)
                poll.unregister(ready)
                tell(told, os.waitpid(pid, 0)[1])
                os.close(ready)
                os.close(told)
                continue
            message, streams = receive(control)
            if not message:
                return None
            *streams, told = streams
            pid = fork()
            if pid == 0:
                os.setpgid(0, 0)
                # The first takes the place of the control socket.
                control.detach()
                for place, stream in enumerate(streams):
                    os.dup2(stream, place)
                    os.close(stream)
                for descriptor in [told, *running, *(other for _, other in running.values())]:
                    os.close(descriptor)
                return json.loads(message)
            # Here as well: it may be signalled as soon as it is told of.
            os.setpgid(pid, pid)
            for stream in streams:
                os.close(stream)
            ended = os.pidfd_open(pid)
            running[ended] = pid, told
            poll.register(ended, select.POLLIN)
            tell(told, pid)


def start_library_threads():
    """OpenBLAS ends its threads before a fork, and starts them again with the next large product. There are two of it."""
    import numpy
    from scipy.linalg import blas

    square = numpy.ones((300, 300))
    square @ square
    blas.dgemm(1.0, square, square)


for module in sys.argv[1:]:
    importlib.import_module(module)
COMMAND_LINE = serve(socket.socket(fileno=0))
if COMMAND_LINE:
    start_library_threads()
    SERVER = sys.modules["__main__"]
    MAIN = sys.modules["__main__"] = types.ModuleType("__main__")
    MAIN.__file__ = COMMAND_LINE[0]
    sys.argv = COMMAND_LINE
    sys.path[0] = os.path.dirname(COMMAND_LINE[0])
    with open(COMMAND_LINE[0], "rb") as script:
        CODE = compile(script.read(), COMMAND_LINE[0], "exec")
    exec(CODE, MAIN.__dict__)
