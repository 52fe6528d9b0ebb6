"""What the author of a method reads: the interface, what networks hand out, and losses that methods share."""
