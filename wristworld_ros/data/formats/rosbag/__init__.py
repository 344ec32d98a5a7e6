"""ROS 2 bags, sqlite3 or mcap, read and written without ROS: one bag is one episode.

`reader` knows the topics, `images` how images are packed in messages, `transforms` where frames are at a time. `messages` makes
messages and bags, `writer` writes episodes, and `adding` gives a bag further topics.
"""

from __future__ import annotations

from pathlib import Path


def is_bag(path: Path) -> bool:
    """Whether a path is a bag: a folder with `metadata.yaml`, or one `.mcap` or `.db3` file."""
    return (path / 'metadata.yaml').is_file() or (path.is_file() and path.suffix in ('.mcap', '.db3'))
