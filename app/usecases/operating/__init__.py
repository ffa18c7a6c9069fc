"""Operating: what operators declare, change and watch."""
