"""What the Python targets share: batches at a line each, and at the end what they know about themselves.

The last line of output is a JSON object. `digest` is over everything that the model gave, so that runs with and without a
tracer can be compared; `outputs` has how many batches gave what, for runs that differ in length. `spans` is the truth: for
each kind of call the names from the outermost call inwards (`path`), the name of the last one's object in the container
that made the call (`step`), the exception that left it (`error`), and how often it happened.
"""

import collections
import hashlib
import json
import sys
import threading


class Truth:
    """Counts what happens, by kind; safe to use from several threads."""

    def __init__(self):
        self._counts = collections.Counter()
        self._lock = threading.Lock()

    def add(self, *path, step=None, error=None, count=1):
        with self._lock:
            self._counts[path, step, error] += count

    def spans(self):
        kinds = sorted(self._counts.items(), key=repr)
        return [
            {"path": list(path), "step": step, "error": error, "count": count}
            for (path, step, error), count in kinds
        ]


def serve(batch, truth, **more):
    """Does a batch for each line on standard input. A batch gives the bytes that belong to the digest."""
    digest = hashlib.sha256()
    outputs = collections.Counter()
    print("ready", flush=True)
    for _ in sys.stdin:
        output = batch()
        digest.update(output)
        outputs[hashlib.sha256(output).hexdigest()] += 1
        print("ready", flush=True)
    told = {"digest": digest.hexdigest(), "outputs": outputs, "spans": truth.spans(), **more}
    print(json.dumps(told), flush=True)
