"""Backfill: everything that a processor's API holds, recorded in the ledger as observed."""
