"""Reconciliation: compares the processors' APIs with the ledger and the books; appends missed events."""
