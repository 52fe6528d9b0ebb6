"""Frozen values: what is asked, and what came out. Nothing here imports torch."""
