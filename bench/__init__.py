"""The benchmark suite: ``make bench`` or ``python -m bench [SCENARIO ...]``; ``--list`` names them.

    __main__ ─► scenarios/<id>.py ─► measure.py: one contender in a fresh process, over a backlog
                                       contenders/*: ours, the floor, the peers
    results.py: table, chart, JSON      report.py: the tables of docs/performance.md

Scenario ids are permanent: results of two releases are compared by them.
"""
