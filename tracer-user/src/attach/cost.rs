//! Measures what a probe costs on this machine, by empty programs on a process of our own.
