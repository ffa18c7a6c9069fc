"""Delivering: hints, claims, permits, rendering, sending, settling."""
