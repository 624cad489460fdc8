"""Reads: documents made from totals and rows. No rule of the books stands here."""
