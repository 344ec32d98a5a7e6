"""What is measured on: sizes, and synthetic images and clouds of these sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wristworld_ros.models.vggt.config import input_size
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.types import AnchorSet, Camera, Reconstruction

PUBLISHED_ANCHOR = (294, 518)  # height, width of anchor images in stage 1; two of them are 304,584 points


@dataclass(frozen=True)
class Shapes:
    """Sizes of one case.

    anchor_hw, wrist_hw: pixels of an anchor image and of the wrist image. views: numbers of anchors that stage 1 is measured
    with; everything else has `anchors` of them. chunk: latent frames. steps: of the sampler. history: chunks attended to.
    """

    anchor_hw: tuple[int, int]
    wrist_hw: tuple[int, int]
    views: tuple[int, ...] = (1, 2, 3)
    anchors: int = 2
    chunk: int = 1
    steps: int = 4
    history: int = 4


@dataclass(frozen=True)
class Surface:
    """A coloured surface in front of a camera.

    points: float32 [N, 3]. colors: uint8 [N, 3]. K: float64 [3, 3]. T_camera_world: float64 [4, 4].
    """

    points: np.ndarray
    colors: np.ndarray
    K: np.ndarray
    T_camera_world: np.ndarray


def anchor_size(model: WristModel) -> tuple[int, int]:
    """Height and width of the anchor images that a model is measured with: as published where it runs at the published
    width, else 240x320."""
    return PUBLISHED_ANCHOR if model.config.anchor_width == PUBLISHED_ANCHOR[1] else (240, 320)


def moving_pattern(frame: int, views: int, height: int = 240, width: int = 320) -> np.ndarray:
    """Images of a moving pattern, uint8 [V, H, W, 3]."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    images = []
    for view in range(views):
        phase = frame * 0.11 + view
        red = 128 + 90 * np.sin(columns / 23 + phase)
        green = 128 + 90 * np.sin(rows / 17 - phase)
        blue = 128 + 90 * np.sin((rows + columns) / 31 + 2 * phase)
        images.append(np.stack([red, green, blue], -1))
    return np.stack(images).astype(np.uint8)


def anchor_set(views: int, hw: tuple[int, int]) -> AnchorSet:
    """An anchor set of the moving pattern, at time 0."""
    return AnchorSet(0, tuple(f'view{v}' for v in range(views)), moving_pattern(0, views, *hw))


def bumpy_surface(hw: tuple[int, int] = PUBLISHED_ANCHOR, views: int = 2, seed: int = 0) -> Surface:
    """As many points as `views` images of hw pixels have, spread over the view of a camera of hw pixels."""
    rng = np.random.default_rng(seed)
    height, width = hw
    scale = width / PUBLISHED_ANCHOR[1]
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    points = []
    for shift in 7.3 * np.arange(views):
        depth = 0.6 + 0.15 * np.sin((columns + shift) / 37) * np.cos(rows / 23) + rng.normal(0, 0.004, hw)
        x, y = (columns - width / 2 + shift) / (400 * scale) * depth, (rows - height / 2) / (400 * scale) * depth
        points.append(np.stack([x, y, depth], -1).reshape(-1, 3))
    points = np.concatenate(points).astype(np.float32)
    colors = rng.integers(0, 256, (len(points), 3), dtype=np.uint8)
    K = np.array([[420.0 * scale, 0, width / 2], [0, 420.0 * scale, height / 2], [0, 0, 1]])
    T = np.eye(4)
    T[:3, 3] = 0.03, -0.02, 0.05
    return Surface(points, colors, K, T)


def surface_reconstruction(model: WristModel, shapes: Shapes) -> Reconstruction:
    """A reconstruction of the model's sizes whose cloud fills the wrist's view, whatever the weights are."""
    hw = input_size(shapes.anchor_hw, model.config.anchor_width, model.stage1.config.patch_size)
    surface = bumpy_surface(hw, shapes.anchors)
    scale = np.array([[shapes.wrist_hw[1] / hw[1]], [shapes.wrist_hw[0] / hw[0]], [1]])
    maps = (shapes.anchors, *hw)
    height, width = shapes.wrist_hw
    return Reconstruction(
        wrist=Camera(surface.K * scale, surface.T_camera_world, width=width, height=height),
        anchors=(),
        points=torch.from_numpy(surface.points).view(*maps, 3).to(model.device),
        confidence=torch.ones(maps, device=model.device),
        colors=torch.from_numpy(surface.colors).view(*maps, 3).to(model.device),
    )
