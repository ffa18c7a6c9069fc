"""Converge: what a customer should learn, said where and when it is seen."""
