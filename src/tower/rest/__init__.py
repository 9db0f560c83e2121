"""The door for scripts and operators: a JSON administration API with an OpenAPI description."""
