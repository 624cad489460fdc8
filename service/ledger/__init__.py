"""The ledger: positions and bytes. Append-only, chained by digest; it knows no money."""
