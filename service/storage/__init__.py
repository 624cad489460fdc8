"""Storage: connections to SQLite and PostgreSQL, prepared statements, background tasks, durable files."""
