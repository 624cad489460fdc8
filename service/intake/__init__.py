"""Intake: deliveries read as events, quarantined, read again; whether they still prove what they said."""
