"""What operators set: the environment, and declarations in TOML."""
