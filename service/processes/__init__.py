"""Starts processes, and ends them together."""
