"""Benchmarks: each module measures one thing, and in the same run the ceiling that it is compared with."""
