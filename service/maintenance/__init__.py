"""Maintenance: backup and restore, erasure of a customer, status, and the preview of changed figures."""
