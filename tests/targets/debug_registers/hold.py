"""Holds debug registers of all threads of a process, as a debugger or `perf` does.

Usage: hold.py PID COUNT. Prints `ready`, and lets go when its standard input ends.
"""

import ctypes
import os
import platform
import struct
import sys

PERF_EVENT_OPEN = {"x86_64": 298}[platform.machine()]
PERF_TYPE_BREAKPOINT = 5
HW_BREAKPOINT_W = 2
EXCLUDE_KERNEL_AND_HYPERVISOR = 0b11 << 5


def attributes(address):
    # struct perf_event_attr, include/uapi/linux/perf_event.h (PERF_ATTR_SIZE_VER5).
    head = struct.pack("<IIQQQQQIIQQ", PERF_TYPE_BREAKPOINT, 112, 0, 1, 0, 0, EXCLUDE_KERNEL_AND_HYPERVISOR, 0, HW_BREAKPOINT_W, address, 8)
    return ctypes.create_string_buffer(head.ljust(112, b"\0"))


def main(process, count):
    libc = ctypes.CDLL(None, use_errno=True)
    for thread in os.listdir(f"/proc/{process}/task"):
        for number in range(count):
            # Nothing is ever written there.
            held = libc.syscall(PERF_EVENT_OPEN, attributes(0x10000 + 8 * number), int(thread), -1, -1, 0)
            if held < 0:
                sys.exit(f"thread {thread}: {os.strerror(ctypes.get_errno())}")
    print("ready", flush=True)
    sys.stdin.read()


main(int(sys.argv[1]), int(sys.argv[2]))
