"""Colours and surfaces, sampled."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from wristworld_ros.geometry.images import resize_images


def sample_color(rng: np.random.Generator, saturation: float = 0.7, dark: float = 0.25) -> np.ndarray:
    """RGB in 0..1, float64 [3], of at most this saturation and at least the brightness `dark`."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation * rng.random(), rng.uniform(dark, 1.0)))


@lru_cache(maxsize=1)
def _photos() -> tuple[np.ndarray, ...]:
    import robosuite

    folder = Path(robosuite.__file__).parent / 'models' / 'assets' / 'textures'
    wanted = ('wood', 'plaster', 'tile', 'ceramic', 'felt', 'clay', 'metal', 'steel', 'bricks', 'dirt', 'brass')
    paths = sorted(path for path in folder.glob('*.png') if any(word in path.name for word in wanted))
    return tuple(resize_images(cv2.imread(str(path))[None, ..., ::-1], (512, 512))[0] for path in paths)


def sample_texture(rng: np.random.Generator, size: int, saturation: float = 0.5) -> np.ndarray:
    """A surface, uint8 [size, size, 3]: a photograph that robosuite ships, noise, stripes, squares or plain colour."""
    kind = rng.choice(['photo', 'noise', 'flat', 'stripes', 'squares'], p=[0.4, 0.25, 0.15, 0.1, 0.1])
    first = sample_color(rng, saturation)
    second = np.clip(first + rng.normal(0, 0.15, 3), 0, 1) if rng.random() < 0.7 else sample_color(rng, saturation)
    if kind == 'photo':
        photos = _photos()
        photo = photos[rng.integers(len(photos))]
        side = int(rng.integers(200, 513))
        y, x = rng.integers(0, 513 - side, 2)
        image = resize_images(photo[None, y : y + side, x : x + side], (size, size))[0] / 255.0
        tint = 1 + rng.uniform(0, 0.6) * (first - first.mean())
        return (255 * np.clip(image * tint * rng.uniform(0.6, 1.15), 0, 1)).astype(np.uint8)
    if kind == 'noise':
        mix = np.zeros((size, size))
        for octave in range(int(rng.integers(1, 3)), 7):
            grid = rng.random((2**octave, 2 ** int(np.clip(octave + rng.integers(-1, 2), 0, 8))))
            # Bicubic, which makes noise smooth: no image is brought to another size here.
            mix += cv2.resize(grid - 0.5, (size, size), interpolation=cv2.INTER_CUBIC) / octave
        mix = np.clip(0.5 + mix * rng.uniform(0.4, 1.5), 0, 1)
    elif kind == 'flat':
        mix = np.clip(0.5 + 0.05 * rng.standard_normal((size, size)), 0, 1)
    else:
        count = int(rng.integers(2, 12))
        wave = (np.arange(size) * count // size) % 2
        mix = (wave[:, None] ^ wave[None, :] if kind == 'squares' else np.broadcast_to(wave, (size, size))).astype(
            float
        )
        mix = mix * rng.uniform(0.3, 1.0)
    image = first + (second - first) * mix[..., None]
    return (255 * np.clip(image, 0, 1)).astype(np.uint8)
