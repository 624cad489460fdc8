"""The worker: keeps the books in step with the ledger."""
