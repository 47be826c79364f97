"""Holds debug registers of all threads of a process, as `perf` does, or as a debugger does.

Usage: hold.py PID COUNT [--ptrace]. Prints `ready`, and lets go when its standard input ends. What a debugger has set stays
until the process ends.
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

# ptrace(2), and `u_debugreg` of struct user in <sys/user.h>.
PTRACE_POKEUSER = 6
PTRACE_CONT = 7
PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
DEBUG_REGISTER = 848

libc = ctypes.CDLL(None, use_errno=True)


def address(number):
    """Nothing is ever written there."""
    return 0x10000 + 8 * number


def attributes(number):
    # struct perf_event_attr, include/uapi/linux/perf_event.h (PERF_ATTR_SIZE_VER5).
    head = struct.pack(
        "<IIQQQQQIIQQ",
        PERF_TYPE_BREAKPOINT,
        112,
        0,
        1,
        0,
        0,
        EXCLUDE_KERNEL_AND_HYPERVISOR,
        0,
        HW_BREAKPOINT_W,
        address(number),
        8,
    )
    return ctypes.create_string_buffer(head.ljust(112, b"\0"))


def checked(thread, result):
    if result < 0:
        sys.exit(f"thread {thread}: {os.strerror(ctypes.get_errno())}")


def ptrace(request, thread, place=0, data=0):
    arguments = [ctypes.c_long(request), ctypes.c_long(thread), ctypes.c_ulong(place), ctypes.c_ulong(data)]
    checked(thread, libc.ptrace(*arguments))


def stop(thread):
    ptrace(PTRACE_INTERRUPT, thread)
    os.waitpid(thread, 0x40000000)  # __WALL


def hold_as_perf(thread, count):
    for number in range(count):
        checked(thread, libc.syscall(PERF_EVENT_OPEN, attributes(number), thread, -1, -1, 0))


def hold_as_debugger(thread, count):
    ptrace(PTRACE_SEIZE, thread)
    stop(thread)
    control = 0
    for number in range(count):
        ptrace(PTRACE_POKEUSER, thread, DEBUG_REGISTER + 8 * number, address(number))
        # Enabled for this thread; writes (0b01) of 8 bytes (0b10).
        control |= 1 << 2 * number | 0b1001 << 16 + 4 * number
    ptrace(PTRACE_POKEUSER, thread, DEBUG_REGISTER + 8 * 7, control)
    ptrace(PTRACE_CONT, thread)


def main(process, count, *options):
    threads = [int(thread) for thread in os.listdir(f"/proc/{process}/task")]
    hold = hold_as_debugger if "--ptrace" in options else hold_as_perf
    for thread in threads:
        hold(thread, count)
    print("ready", flush=True)
    sys.stdin.read()
    if hold is hold_as_debugger:
        for thread in threads:
            stop(thread)
            ptrace(PTRACE_DETACH, thread)


main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
