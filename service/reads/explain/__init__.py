"""Figures taken apart: the rows of the books behind any number that a read shows."""
