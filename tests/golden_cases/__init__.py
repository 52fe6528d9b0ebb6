"""The cases of golden files. A module here registers its own."""
