"""From an image specification to an environment that can run code."""
