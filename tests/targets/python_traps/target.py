"""An estimator in nothing but Python, and all that signals may do to its process.

Usage: target.py WHAT COUNT. WHAT happens COUNT times in each batch, between predictions:
  signals   signals of every kind are sent and handled: ordinary, queued, blocked, ignored, from children and timers
  stops     a child stops the process, sees it stopped, and lets it go on
  children  children end in every way; threads come and go
  own       the program has breakpoints of its own (`int3`) and handles them; `int1` loops for ever on some hypervisors
  lost      what the kernel does when a hypervisor loses the cause of a debug exception: SIGTRAP arrives as if the program had
            executed `int1`, which it has not. Ends a process that is not guarded.
  fault     the process reads address 0 in the end
  pauses    threads come and go and signals are handled; tells the longest time that one round has taken
  storm     signals follow each other as fast as they are handled, and each one is waited for
  idle      as many threads as COUNT do nothing, while the first one predicts
  churn     threads of two milliseconds come and go all the time, while the first one calls four methods
"""

import ctypes
import mmap
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "shared_python"))
from gate import Truth, serve

TRUTH = Truth()


class Estimator:
    """What the map asks for."""

    def predict(self, rows):
        return [row * 2 for row in rows]


MODEL = Estimator()


def predict(number):
    TRUTH.add("Estimator.predict")
    return MODEL.predict([number, number + 1])


def wait_until(condition):
    # A handler of Python runs a moment after its signal.
    while not condition():
        time.sleep(0.0001)


def signals(count):
    seen = {}

    def handle(number, _frame):
        seen[number] = seen.get(number, 0) + 1
        predict(number)

    kinds = [signal.SIGUSR1, signal.SIGCHLD, signal.SIGALRM, signal.SIGRTMIN, signal.SIGRTMAX]
    for kind in kinds:
        signal.signal(kind, handle)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def batch():
        seen.clear()
        output = []
        for number in range(count):
            output.append(predict(number))
            for kind in (signal.SIGUSR1, signal.SIGRTMIN, signal.SIGRTMAX):
                before = seen.get(kind, 0)
                os.kill(os.getpid(), kind)
                wait_until(lambda: seen.get(kind, 0) > before)
            os.kill(os.getpid(), signal.SIGUSR2)
            # Blocked, then let through.
            before = seen.get(signal.SIGUSR1, 0)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            os.kill(os.getpid(), signal.SIGUSR1)
            pending = signal.SIGUSR1 in signal.sigpending()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
            wait_until(lambda: seen.get(signal.SIGUSR1, 0) > before)
            before = seen.get(signal.SIGALRM, 0)
            signal.setitimer(signal.ITIMER_REAL, 0.0005)
            wait_until(lambda: seen.get(signal.SIGALRM, 0) > before)
            output.append(pending)
        child = os.fork()
        if not child:
            os._exit(3)
        output.append(os.waitpid(child, 0)[1])
        wait_until(lambda: signal.SIGCHLD in seen)
        return output, sorted(seen.items())

    return batch


STOPPER = """
import os, signal, sys, time
parent = int(sys.argv[1])
def is_stopped():
    # There may be no /proc. Under ptrace a stopped process says `t`.
    if not os.path.exists(f"/proc/{parent}/stat"):
        return True
    return open(f"/proc/{parent}/stat").read().rsplit(")", 1)[1].split()[0] in "Tt"
os.kill(parent, signal.SIGSTOP)
while not is_stopped():
    time.sleep(0.001)
time.sleep(0.05)
assert is_stopped()
os.kill(parent, signal.SIGCONT)
"""


def stops(count):
    def batch():
        output = []
        for number in range(count):
            output.append(predict(number))
            output.append(subprocess.run([sys.executable, "-c", STOPPER, str(os.getpid())]).returncode)
        return output

    return batch


def children(count):
    def batch():
        output = []
        for number in range(count):
            output.append(predict(number))
            for ending in (lambda: os._exit(5), lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os.abort()):
                child = os.fork()
                if not child:
                    ending()
                output.append(os.waitpid(child, 0)[1] & 0x7F7F)
            output.append(subprocess.run(["/bin/sh", "-c", "exit 4"]).returncode)
            results = []
            threads = [threading.Thread(target=lambda: results.append(predict(7))) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            output.append(results)
        return output

    return batch


def code(*instructions):
    """A function of these bytes."""
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(bytes(instructions))
    function = ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    function.memory = memory
    return function


INT3, RETURN = 0xCC, 0xC3


def own(count):
    handled = []
    signal.signal(signal.SIGTRAP, lambda number, _frame: handled.append(number))
    breakpoint_of_its_own = code(INT3, RETURN)

    def batch():
        handled.clear()
        output = []
        for number in range(count):
            output.append(predict(number))
            before = len(handled)
            breakpoint_of_its_own()
            wait_until(lambda: len(handled) > before)
        return output, len(handled)

    return batch


# With the interpreter's lock held, as when Python changes a reference count.
LIBC = ctypes.PyDLL(None, use_errno=True)
RT_TGSIGQUEUEINFO = 297
TRAP_BRKPT = 1


class SignalInformation(ctypes.Structure):
    _fields_ = [
        ("number", ctypes.c_int),
        ("errno", ctypes.c_int),
        ("code", ctypes.c_int),
        ("_padding", ctypes.c_int),
        ("address", ctypes.c_uint64),
        ("_rest", ctypes.c_char * 104),
    ]


def after_system_call():
    """Where a thread goes on after a system call that it makes through the C library's `syscall`."""
    start = ctypes.cast(LIBC.syscall, ctypes.c_void_p).value
    return start + ctypes.string_at(start, 64).index(b"\x0f\x05") + 2


class Range(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def change_unseen(address, amount):
    """Changes a word as no watchpoint sees it: the kernel writes it."""
    word = ctypes.c_uint64(ctypes.c_uint64.from_address(address).value + amount)
    local, remote = Range(ctypes.addressof(word), 8), Range(address, 8)
    written = LIBC.process_vm_writev(os.getpid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    assert written == 8, written


def lost(count):
    where = after_system_call()
    counter = id(Estimator.predict.__code__)

    def lose():
        information = SignalInformation(signal.SIGTRAP, 0, TRAP_BRKPT, 0, where)
        thread = threading.get_native_id()
        sent = LIBC.syscall(RT_TGSIGQUEUEINFO, os.getpid(), thread, signal.SIGTRAP, ctypes.byref(information))
        assert sent == 0, ctypes.get_errno()

    def batch():
        output = []
        for number in range(count):
            output.append(predict(number))
            lose()
            # Somebody takes a reference to the code and drops it again, both times without a hit.
            change_unseen(counter, 1)
            lose()
            output.append(predict(number))
            change_unseen(counter, -1)
            lose()
        return output

    return batch


def fault(count):
    def batch():
        output = [predict(number) for number in range(count)]
        ctypes.string_at(0)
        return output

    return batch


def pauses(count):
    handled = []
    signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))

    def batch():
        longest = 0
        for number in range(count):
            began = time.monotonic()
            predict(number)
            thread = threading.Thread(target=lambda: None)
            thread.start()
            thread.join()
            before = len(handled)
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_until(lambda: len(handled) > before)
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.004)
        print(f"longest pause {longest * 1000:.0f} ms", flush=True)
        return count

    return batch


def storm(count):
    handled = []
    signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))

    def batch():
        predict(0)
        for number in range(count):
            before = len(handled)
            os.kill(os.getpid(), signal.SIGUSR1)
            while len(handled) == before:
                pass
        return count

    return batch


def idle(count):
    for _ in range(count):
        threading.Thread(target=lambda: time.sleep(1000), daemon=True).start()
    return lambda: [predict(number) for number in range(20)]


class Wide(Estimator):
    """Four code objects with its base."""

    def predict(self, rows):
        return [row * 3 for row in rows]

    def transform(self, rows):
        return rows

    def predict_proba(self, rows):
        return [0.5 for _ in rows]


def churn(count):
    def spawn():
        while True:
            threading.Thread(target=lambda: time.sleep(0.002), daemon=True).start()
            time.sleep(0.0002)

    threading.Thread(target=spawn, daemon=True).start()
    wide = Wide()

    def batch():
        for number in range(count):
            predict(number)
            for method in ("predict", "transform", "predict_proba"):
                TRUTH.add(f"Wide.{method}")
                getattr(wide, method)([number])
        return count

    return batch


WHAT = {"pauses": pauses, "storm": storm, "idle": idle, "churn": churn, "signals": signals, "stops": stops, "children": children, "own": own, "lost": lost, "fault": fault}
BATCH = WHAT[sys.argv[1]](int(sys.argv[2]))
serve(lambda: repr(BATCH()).encode(), TRUTH)
