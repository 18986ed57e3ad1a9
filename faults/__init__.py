"""Faults against a real deployment: ``python -m faults``, which is ``make faults``.

options ─► schedule (seeded) ─► cluster (Kafka, Valkey, proxies, workers, load) ─► kinds, one by one
                                   └─► all applied ─► checks (recomputed from the log) ─► report
"""
