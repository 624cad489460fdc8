"""Sync: whatever asks a processor's API: polling, confirming, reconciling. Only this room sends requests."""
