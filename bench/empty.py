"""The ceiling of an RPC: the generated Connect application with a CreateRun that does nothing.

    python -m bench.empty

It runs on the stack that Tower runs on (uvicorn with uvloop and httptools, no access log), on a free port of
loopback, and prints `ready URL`.
"""

from __future__ import annotations

import socket
from typing import Any

import uvicorn
from flyteidl2.workflow.run_service_connect import RunServiceASGIApplication
from flyteidl2.workflow.run_service_pb2 import CreateRunRequest, CreateRunResponse


class Empty:
    """A run service that creates nothing."""

    async def create_run(self, _request: CreateRunRequest, _context: Any) -> CreateRunResponse:
        """Answer with the message that a real answer has at the least."""
        answer = CreateRunResponse()
        answer.run.action.id.name = "a0"
        return answer

    def __getattr__(self, name: str) -> Any:
        # the generated application asks for every method of the service when it is made
        if name.startswith("_"):
            raise AttributeError(name)
        return self.create_run


def main() -> None:
    """Serve until the process is stopped."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(
        RunServiceASGIApplication(Empty()),  # type: ignore[arg-type]
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        log_level="warning",
    )
    print(f"ready http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
