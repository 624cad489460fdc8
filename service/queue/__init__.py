"""The queue in Redis or Valkey. It only wakes workers, so losing it loses no work."""
