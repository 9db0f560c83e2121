"""What a FastAPI or Starlette app needs to act for its callers.

::

    from flyte.app.extras import FastAPIAppEnvironment, FastAPIPassthroughAuthMiddleware

Needs `fastapi` (or `starlette`) in the environment of the app.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("starlette") is None:
    raise ModuleNotFoundError(
        'flyte.app.extras needs FastAPI or Starlette: image.with_pip_packages("fastapi", "uvicorn").',
        name="starlette",
    )

from ._errors import flyte_error_handler, install_error_handlers
from ._extract import SESSION_COOKIES, HeaderExtractor
from ._fastapi import FastAPIAppEnvironment
from ._middleware import FastAPIPassthroughAuthMiddleware

__all__ = [
    "SESSION_COOKIES",
    "FastAPIAppEnvironment",
    "FastAPIPassthroughAuthMiddleware",
    "HeaderExtractor",
    "flyte_error_handler",
    "install_error_handlers",
]
