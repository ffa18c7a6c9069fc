"""People: customers, their addresses, what is kept of them, and how it goes."""
