"""Processes: what starts them, and what ends them together."""
