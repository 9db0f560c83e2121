"""WHO is calling: principals, and the chain of authenticators that names them."""
