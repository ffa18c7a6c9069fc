"""Celery tasks: load, call the use case, return one line of counts. Nothing is decided here."""
