"""Edges: Kafka, Redis, memory. Vendor errors are translated here and go no further."""
