"""Sweeps: cells of modules, shapes, precisions and engines, each measured once, in a process of its own."""
