"""Depth in LeRobot's videos: 12 bits a pixel, finer near the camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wristworld_ros.data.formats.lerobot.layout import Feature
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import convert

MAX_CODE = 4095
_MILLIMETRES = 1000.0


@dataclass(frozen=True)
class DepthCode:
    """How depth becomes codes, 0 to `MAX_CODE`; metres. Code 0 says that depth is unknown.

    depth_min, depth_max: what the first and the last code mean. shift: added before the logarithm. use_log: codes are even in
    the logarithm of depth + shift; otherwise in depth.
    """

    depth_min: float = 0.01
    depth_max: float = 10.0
    shift: float = 3.5
    use_log: bool = True

    def __post_init__(self):
        if not self.depth_min < self.depth_max or (self.use_log and self.depth_min + self.shift <= 0):
            raise ValueError(
                f'depth_min {self.depth_min}, depth_max {self.depth_max} and shift {self.shift} do not fit'
            )

    def encode(self, depth: np.ndarray) -> np.ndarray:
        """Depth [...] in metres, 0 or not finite where unknown, as uint16 [...] codes. Known depth never becomes code 0."""
        known = np.isfinite(depth) & (depth > 0)
        low, high = self._ends()
        metres = np.where(known, depth, self.depth_min)
        share = ((np.log(metres + self.shift) if self.use_log else metres) - low) / (high - low)
        return np.where(known, np.rint(share * MAX_CODE).clip(1, MAX_CODE), 0).astype(np.uint16)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes uint16 [...] as float32 [...] metres, 0 where unknown."""
        low, high = self._ends()
        values = np.float32(low) + codes.astype(np.float32) * np.float32((high - low) / MAX_CODE)
        metres = np.exp(values) - np.float32(self.shift) if self.use_log else values
        return np.where(codes > 0, metres.clip(self.depth_min, self.depth_max), 0).astype(np.float32)

    def _ends(self) -> tuple[float, float]:
        if self.use_log:
            return float(np.log(self.depth_min + self.shift)), float(np.log(self.depth_max + self.shift))
        return self.depth_min, self.depth_max


def depth_code(feature: Feature, source: str) -> DepthCode | None:
    """How a depth video is coded; None where it holds plain millimetres in 16 bits.

    Args:
        feature: Its entry.
        source: What to call it in messages.

    Raises:
        UserError: The parameters are no numbers, or do not fit together.
    """
    details = feature.details
    if 'video.depth_min' not in details and str(details.get('video.pix_fmt', '')).startswith('gray16'):
        return None
    given = {
        name: details[f'video.{name}']
        for name in ('depth_min', 'depth_max', 'shift', 'use_log')
        if f'video.{name}' in details
    }
    try:
        return convert(given, DepthCode, source)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{source} has {error}', 'restore its entry in meta/info.json') from None


def metres(codes: np.ndarray, code: DepthCode | None) -> np.ndarray:
    """What a depth video's pixels mean, float32 metres, 0 where unknown."""
    return codes.astype(np.float32) / _MILLIMETRES if code is None else code.decode(codes)
