"""A contact sheet of a data set: for some episodes, a row of images of each camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from wristworld_ros.data.episode import DataSet, Episode
from wristworld_ros.data.images import write_image
from wristworld_ros.errors import UserError
from wristworld_ros.geometry.images import resize_images

_WIDTH, _GAP, _TITLE = 160, 4, 18  # pixels
_INK, _PAPER = (20, 20, 20), 255


def write_sheet(data: DataSet, path: Path, episodes: int, columns: int) -> None:
    """Write the sheet.

    Args:
        data: The set.
        path: A PNG or JPEG file.
        episodes: How many at most, evenly spread.
        columns: Images of each camera.

    Raises:
        UserError: The file cannot be written.
    """
    chosen = np.unique(np.linspace(0, len(data) - 1, min(episodes, len(data))).round().astype(int)).tolist()
    strips: list[np.ndarray] = []
    for index in chosen:
        try:
            episode = data.episode(index)
        except UserError as error:
            strips.append(_title(f'episode {index}: {error.what}', columns))
            continue
        strips += [part for camera in episode.cameras for part in _strip(episode, camera.name, columns)]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_image(path, np.concatenate(strips))
    except OSError as error:
        raise UserError(f'{path} cannot be written ({error.strerror})', 'give another path') from None


def _strip(episode: Episode, camera: str, columns: int) -> list[np.ndarray]:
    frames = np.linspace(0, len(episode) - 1, columns).round().astype(int)
    title = ', '.join(filter(None, (episode.name, camera, episode.task)))
    try:
        images = episode.read(camera, frames)
    except UserError as error:
        return [_title(f'{episode.name}, {camera}: {error.what}', columns)]
    height = max(round(images.shape[1] * _WIDTH / images.shape[2]), 1)
    row = np.full((height + _GAP, columns * (_WIDTH + _GAP), 3), _PAPER, np.uint8)
    for place, image in enumerate(resize_images(images, (height, _WIDTH))):
        row[:height, place * (_WIDTH + _GAP) : place * (_WIDTH + _GAP) + _WIDTH] = image
    return [_title(title, columns), row]


def _title(text: str, columns: int) -> np.ndarray:
    strip = np.full((_TITLE, columns * (_WIDTH + _GAP), 3), _PAPER, np.uint8)
    return cv2.putText(strip, text, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
