"""What the formats that get a camera have in common, as a run of `augment` needs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from wristworld_ros.apps.augment.result import EpisodeResult
from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.data.episode import DataSet
from wristworld_ros.runtime.files import file_sha256


class AugmentSource(ABC):
    """A data set that gets a camera.

    data: the set. folder: of the manifest and what goes with it, below the new set. lossless: whether images go into the set as they
    are, and not as a video of their own. codes_depth: whether depth is coded as LeRobot does it.
    """

    data: DataSet
    folder: str
    lossless = False
    codes_depth = False

    @abstractmethod
    def marker(self, settings: AugmentSettings) -> str:
        """A file that every set made by such a run has, so that `--force` replaces nothing else."""

    @abstractmethod
    def check(self, settings: AugmentSettings) -> None:
        """Check, before any work, that the set can get the camera.

        Raises:
            UserError: It has one like it already.
        """

    @abstractmethod
    def depends(self, place: int, anchors: tuple[str, ...]) -> dict[str, Any]:
        """What the result of an episode depends on beside the run: files by hash, and where it lies in them, as JSON can hold it.

        Raises:
            OSError: A file of the episode cannot be read.
        """

    @abstractmethod
    def write(
        self,
        folder: Path,
        results: Sequence[EpisodeResult],
        work: Path,
        settings: AugmentSettings,
        anchors: tuple[str, ...],
    ) -> None:
        """Write the set with the camera.

        Args:
            folder: An empty directory.
            results: Of all episodes, in order.
            work: Where their folders are.
            settings: Of the run.
            anchors: Names of the cameras that the model saw.

        Raises:
            UserError: A file of the source cannot be read, or the disk refuses.
        """

    @abstractmethod
    def reopened(self, folder: Path) -> DataSet:
        """The new set."""

    @abstractmethod
    def camera(self, settings: AugmentSettings) -> str:
        """What the new camera is called in the new set."""

    def described(self) -> dict[str, Any]:
        """What the manifest says of the source."""
        return {'name': self.data.path.name, 'format': self.data.format}

    def number(self, place: int) -> int:
        """The number of an episode by its place in the set."""
        return place

    def length(self, place: int) -> int:
        """Frames of an episode that cannot be opened, as far as the set says; else 0, and then nothing is made of it."""
        return 0

    @property
    def fps(self) -> float:
        """Frames per second of episodes that cannot be read."""
        return 10.0


@lru_cache(maxsize=256)
def sha256_of(path: Path) -> str:
    """Hash of a file; many episodes share one, and it does not change while a run lasts."""
    return file_sha256(path)
