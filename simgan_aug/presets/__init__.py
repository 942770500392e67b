"""Presets as TOML files; values that the paper does not state are marked so."""
