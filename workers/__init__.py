"""The Celery application and the fleets. `python -m workers NAME` runs one; see `fleets`."""
