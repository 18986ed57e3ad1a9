"""The contenders: each a program of its own, told by ``BENCH_*`` variables what to do.

They do the job of :mod:`bench.contenders.job` and import nothing of ours but that: they run in an
environment that has their frameworks and not our product.
"""
