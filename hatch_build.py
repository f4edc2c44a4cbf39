"""The build's own step: the package page is README.md with links that work outside the repository.

A package index shows README.md alone, so a relative link there leads nowhere. If `[project.urls]` names the `Source`, relative links
become absolute below that address. Without it, a link becomes its text and an image its description.
"""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

# An image or a link of Markdown whose target is neither absolute nor a place on the page itself.
_RELATIVE = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?!\w+:|#|//)(?P<target>[^)\s]+)\)")


def page(readme: str, source: str) -> str:
    """Return the text of a package page; `source` is the public address of the repository's files, "" if there is none."""
    files, raw = f"{source.rstrip('/')}/blob/main/", f"{source.rstrip('/')}/raw/main/"

    def absolute(found: re.Match[str]) -> str:
        if not source:
            return f"*{found['text']}*" if found["image"] else found["text"]
        return f"{found['image']}[{found['text']}]({raw if found['image'] else files}{found['target']})"

    return _RELATIVE.sub(absolute, readme)


class PackagePage(MetadataHookInterface):
    """Gives hatchling the package page."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, object]) -> None:
        """Set `readme` from README.md."""
        urls = metadata.get("urls")
        source = str(urls.get("Source", "")) if isinstance(urls, dict) else ""
        text = page((Path(self.root) / "README.md").read_text(encoding="utf-8"), source)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
