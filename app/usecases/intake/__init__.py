"""Intake: intents are checked and kept; what is not taken is told with its field."""
