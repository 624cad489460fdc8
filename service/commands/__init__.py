"""The operator's commands: one module for each, which imports what it runs only when it runs."""
