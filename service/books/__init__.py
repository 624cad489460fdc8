"""The books: projections kept in step with the ledger, and the documents read from them."""
