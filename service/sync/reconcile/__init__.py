"""Reconciliation: what processors' APIs say, beside the ledger and the books. What is missing is appended."""
