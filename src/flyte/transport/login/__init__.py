"""Signing in at a control plane: its OAuth endpoints, the two ways for people, and the cache of logins."""
