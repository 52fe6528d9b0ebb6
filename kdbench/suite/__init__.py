"""YAML and plugins in, trials out."""
