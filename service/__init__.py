"""Daybook: signed webhooks to an append-only ledger to books that replay to the byte."""
