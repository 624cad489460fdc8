"""Reads: documents made from totals and rows. The rules of the books are not here, but in `projections`."""
