"""The live books: projections kept up to date with the ledger, their tables, and the view of a read."""
