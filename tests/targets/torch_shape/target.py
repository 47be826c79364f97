"""A network of modules that are kept and called as PyTorch does it; its wheel is too large to install for a test.

Usage: target.py CALLS [ordered]. With `ordered` modules are kept in an OrderedDict.
"""

import collections
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "shared_python"))
from gate import Truth, serve
from torch.nn.modules import module as torch_module
from torch.nn.modules.module import Module


class Linear(Module):
    """One weight and one bias for all."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, values):
        return [self.weight * value + self.bias for value in values]


class ReLU(Module):
    """Nothing below zero."""

    def forward(self, values):
        return [max(value, 0.0) for value in values]


class Sequential(Module):
    """One after the other."""

    def __init__(self, *modules):
        super().__init__()
        for number, module in enumerate(modules):
            self.add_module(str(number), module)

    def forward(self, values):
        for module in self._modules.values():
            values = module(values)
        return values


class Net(Module):
    """Two branches; the second one has a hook."""

    def __init__(self):
        super().__init__()
        self.body = Sequential(Linear(0.5, 1.0), ReLU(), Linear(-2.0, 0.25))
        self.head = Linear(3.0, 0.0)
        self.head.before.append(lambda module, inputs: None)

    def forward(self, values):
        return [left + right for left, right in zip(self.body(values), self.head(values))]


def main(calls, *options):
    if "ordered" in options:
        torch_module.MODULES = collections.OrderedDict
    net = Net()
    truth = Truth()

    def batch():
        output = []
        for number in range(calls):
            output += net([float(number % 17), -1.0, 2.5])
            truth.add("Net.__call__")
            truth.add("Net.__call__", "Sequential.__call__", step="body")
            for name, step in [("Linear", "0"), ("ReLU", "1"), ("Linear", "2")]:
                truth.add("Net.__call__", "Sequential.__call__", f"{name}.__call__", step=step)
            truth.add("Net.__call__", "Linear.__call__", step="head")
        return repr(output).encode()

    serve(batch, truth)


main(int(sys.argv[1]), *sys.argv[2:])
