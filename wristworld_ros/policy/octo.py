"""Observations of Octo 1.5 (small and base), as `OctoModel.sample_actions` takes them; Octo is not imported.

The primary image is 256x256, the wrist's 128x128, both resized whole; a window of two moments goes in, and a mask says which
of them are there. Octo also masks single images: a moment whose wrist image is invalid is told so, and is not attended to.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from wristworld_ros.errors import UserError
from wristworld_ros.policy.fitting import check_image, stretch, stretch_wrist
from wristworld_ros.types import WristImage

PRIMARY, WRIST = 'image_primary', 'image_wrist'
TIMESTEP_MASK, IMAGE_MASK = 'timestep_pad_mask', 'pad_mask_dict'
PRIMARY_HW, WRIST_HW = (256, 256), (128, 128)
WINDOW = 2


def fit_wrist(wrist: WristImage) -> WristImage:
    """The wrist image at the size that the policy takes."""
    return stretch_wrist(wrist, *WRIST_HW)


class OctoObservation:
    """Collects the last moments of an episode.

    Args:
        window: Moments that the policy sees: 2 as trained, or 1.
    """

    def __init__(self, window: int = WINDOW):
        if window not in (1, 2):
            raise UserError(f'window is {window!r}', 'give 1 or 2')
        self._window = window
        self._moments: deque[tuple[np.ndarray, np.ndarray | None]] = deque(maxlen=window)

    def reset(self) -> None:
        """A new episode begins."""
        self._moments.clear()

    def add(self, wrist: WristImage | None, primary: np.ndarray) -> dict[str, Any]:
        """One more moment; call it at the policy's own rate.

        Args:
            wrist: The wrist image, of any size, or None where there is no valid one.
            primary: uint8 [H, W, 3], RGB, the image of the exterior camera, of any size.

        Returns:
            image_primary uint8 [1, T, 256, 256, 3], image_wrist uint8 [1, T, 128, 128, 3], timestep_pad_mask bool [1, T] (True
            where there was a moment), pad_mask_dict of bool [1, T] for each image (True where it may be attended to); T is the
            window. What is not there is black and masked.

        Raises:
            UserError: An argument has another shape or type.
        """
        check_image('The primary image', primary)
        self._moments.append((stretch(primary, *PRIMARY_HW), None if wrist is None else fit_wrist(wrist).image))
        missing = self._window - len(self._moments)
        there = np.arange(self._window) >= missing
        seen = there.copy()
        primaries, wrists = (
            np.zeros((self._window, *PRIMARY_HW, 3), np.uint8),
            np.zeros((self._window, *WRIST_HW, 3), np.uint8),
        )
        for t, (first, second) in enumerate(self._moments, start=missing):
            primaries[t] = first
            if second is None:
                seen[t] = False
            else:
                wrists[t] = second
        return {
            PRIMARY: primaries[None],
            WRIST: wrists[None],
            TIMESTEP_MASK: there[None],
            IMAGE_MASK: {PRIMARY: there[None], WRIST: seen[None]},
        }


def make_example(seed: int = 0) -> dict[str, Any]:
    """A random observation with the keys, shapes and types of `OctoObservation.add`: for warming a policy up and for tests."""
    rng, all_there = np.random.default_rng(seed), np.ones((1, WINDOW), bool)
    return {
        PRIMARY: rng.integers(0, 256, (1, WINDOW, *PRIMARY_HW, 3), np.uint8),
        WRIST: rng.integers(0, 256, (1, WINDOW, *WRIST_HW, 3), np.uint8),
        TIMESTEP_MASK: all_there,
        IMAGE_MASK: {PRIMARY: all_there.copy(), WRIST: all_there.copy()},
    }
