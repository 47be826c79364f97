"""A model in the format of ONNX, written by hand: the package that makes such files is larger than the one that runs them.

Fields are those of onnx/onnx.proto (IR version 8), in the wire format of protocol buffers.
"""

FLOAT = 1


def number(value):
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + number(high) if high else bytes([low])


def field(place, value):
    if isinstance(value, int):
        return number(place << 3) + number(value)
    value = value.encode() if isinstance(value, str) else value
    return number(place << 3 | 2) + number(len(value)) + value


def node(kind, inputs, output):
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind)


def rows_of(name, columns):
    shape = field(1, field(2, "rows")) + field(1, field(1, columns))
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, shape)))


def twice_above_zero(name, columns):
    """Twice each value, and nothing below zero."""
    nodes = [node("Add", [name, name], "sum"), node("Relu", ["sum"], "y")]
    graph = b"".join(field(1, each) for each in nodes) + field(2, "graph")
    graph += field(11, rows_of(name, columns)) + field(12, rows_of("y", columns))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))
