"""The door to user apps: find the app, name the caller, decide, exchange the credential, forward."""
