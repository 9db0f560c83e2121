"""The door for people: server-rendered pages, live by server-sent events."""
