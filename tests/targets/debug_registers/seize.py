"""Traces all threads of a process with ptrace(2), as a debugger or `strace` does.

Usage: seize.py PID. Prints `ready`, and lets go when its standard input ends.
"""

import ctypes
import os
import sys

PTRACE_SEIZE = 0x4206


def main(process):
    libc = ctypes.CDLL(None, use_errno=True)
    for thread in os.listdir(f"/proc/{process}/task"):
        if libc.ptrace(PTRACE_SEIZE, int(thread), 0, 0):
            sys.exit(f"thread {thread}: {os.strerror(ctypes.get_errno())}")
    print("ready", flush=True)
    sys.stdin.read()


main(int(sys.argv[1]))
