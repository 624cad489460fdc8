"""Intake: deliveries are translated to events, quarantined, retranslated, and their proofs checked again."""
