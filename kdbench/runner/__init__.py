"""What to do, where, and writing it down."""
