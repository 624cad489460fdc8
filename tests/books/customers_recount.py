"""The revenue book recounted from its own orders, reversals and failures: months, customers and totals."""
