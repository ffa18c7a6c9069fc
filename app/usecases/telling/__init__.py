"""Telling: what became of messages, in rows and in plain sentences."""
