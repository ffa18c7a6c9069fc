"""Deciding: what an intent does next, by what is known of its customer."""
