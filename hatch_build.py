"""What a build adds to the package's metadata: where the project lives.

The papers are always there. Who publishes sets `IGR_REPOSITORY`, as for the site.
"""

import os

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAPERS = {
    "Paper: IGR": "https://arxiv.org/abs/2009.11162",
    "Paper: MGS": "https://arxiv.org/abs/2205.12642",
    "Paper: SpectReg": "https://arxiv.org/abs/1712.09936",
}


class WhereItLives(MetadataHookInterface):
    """Project URLs, from `IGR_REPOSITORY` where it is set."""

    def update(self, metadata: dict) -> None:
        """Fills `urls` in."""
        where = os.environ.get("IGR_REPOSITORY", "").rstrip("/")
        of_the_project = {
            "Repository": where,
            "Issues": f"{where}/issues",
            "Changelog": f"{where}/blob/main/CHANGELOG.md",
        }
        metadata["urls"] = (of_the_project if where else {}) | PAPERS
