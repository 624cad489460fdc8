"""The queue: Redis or Valkey, which only says that there is something new; losing it loses nothing."""
