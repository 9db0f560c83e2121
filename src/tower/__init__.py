"""Tower: an identity-aware control plane. A server; nothing imports it but its own commands."""
