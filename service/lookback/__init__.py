"""Lookback: the books as they were known earlier, and how later events changed the figures of past days."""
