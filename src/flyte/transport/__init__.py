"""How requests reach the control plane: the Connect protocol, the credential on it, the socket of a workload.

Protobuf, TLS and the HTTP client are imported here and below, and only when a first request is made.
"""
