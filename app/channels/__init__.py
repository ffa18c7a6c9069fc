"""The ways out: one file per provider, all of them held to `contract`."""
