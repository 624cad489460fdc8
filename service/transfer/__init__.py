"""Import and export: files to deliveries, the ledger to a file, the books' rows to files."""
