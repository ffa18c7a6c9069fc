"""Consent: what customers allow and wish, said by themselves, by the brand or by a network."""
