"""Flax linen modules: no losses, no files, no config."""
