"""Images by name: ImageService."""

from __future__ import annotations

from typing import Any

from tower.errors import NotFound


class ImageService:
    """flyteidl2.imagebuilder.ImageService."""

    async def get_image(self, request: Any, ctx: Any) -> Any:
        """There are none by name: an environment is made from what the task itself declares."""
        raise NotFound(
            "There is no such image.", hint="This Tower makes environments from the image a task declares."
        )
