"""The door of the OAuth server: discovery, authorise, token, device, revoke, introspect, key set."""
