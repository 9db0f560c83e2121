"""What runs inside task and app processes. Tower starts these modules; user code does not import them.

`worker` is the template process that forks attempts, `task` one attempt, `serve` an app. The protocol between
them and Tower is described in `docs/guide/child-protocol.md`.
"""

from __future__ import annotations
