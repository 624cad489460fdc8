"""Sync: polls, confirms and reconciles through the processors' APIs. Only this room sends them requests."""
