"""The tests. They are packages, so that tests/handlers does not hide handlers."""
