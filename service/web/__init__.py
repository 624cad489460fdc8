"""The web process: webhooks in, reads out."""
