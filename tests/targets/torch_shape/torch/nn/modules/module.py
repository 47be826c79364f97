"""A base class that has its name, its place and the way of its calls from PyTorch's, and nothing else."""

# What a module keeps its modules in: PyTorch 1 takes an OrderedDict.
MODULES = dict


class Module:
    """What all modules are derived from."""

    def __init__(self):
        self.before = []
        self._modules = MODULES()

    def __setattr__(self, name, value):
        if isinstance(value, Module):
            self._modules[name] = value
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name):
        modules = self.__dict__.get("_modules", {})
        if name not in modules:
            raise AttributeError(name)
        return modules[name]

    def add_module(self, name, module):
        self._modules[name] = module

    def _wrapped_call_impl(self, *args, **kwargs):
        return self._call_impl(*args, **kwargs)

    def _call_impl(self, *args, **kwargs):
        forward = self.forward
        if not self.before:
            return forward(*args, **kwargs)
        for hook in self.before:
            hook(self, args)
        return forward(*args, **kwargs)

    __call__ = _wrapped_call_impl
