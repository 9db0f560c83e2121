"""The use-cases: all that the doors may call."""
