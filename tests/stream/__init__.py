"""The engine, from the log to the store."""
