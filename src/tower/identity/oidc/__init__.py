"""Other parties' identities (OpenID Connect): discovery, keys, what their tokens say, and the code flow."""
