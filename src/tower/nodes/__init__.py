"""The door for agents on other nodes: they get their tokens here, and their calls come in."""
