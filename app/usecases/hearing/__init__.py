"""Hearing: what comes back (receipts, clicks, messages, mail reports), and what follows from it."""
