"""Replay and evaluation: the worker's own pipeline on event files."""
