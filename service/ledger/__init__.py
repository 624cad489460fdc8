"""The ledger: events at positions, append-only and chained by digest. It knows nothing of money."""
