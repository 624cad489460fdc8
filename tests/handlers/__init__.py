"""Processors: what each proves and translates."""
