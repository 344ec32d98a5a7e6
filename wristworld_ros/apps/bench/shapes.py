"""What the parts are measured on: sizes of images, views, chunk and steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wristworld_ros.apps.bench.condition import scene
from wristworld_ros.apps.bench.stream import pictures
from wristworld_ros.models.vggt.config import input_size
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.types import AnchorSet, Camera, Reconstruction

PUBLISHED_ANCHOR = (294, 518)  # height, width


@dataclass(frozen=True)
class Shapes:
    """anchor_hw, wrist_hw: pixels of an anchor image and of the wrist image. views: numbers of anchors stage 1 is measured
    with; everything else has `anchors` of them. chunk: latent frames. steps: of the sampler. history: chunks seen."""

    anchor_hw: tuple[int, int]
    wrist_hw: tuple[int, int]
    views: tuple[int, ...] = (1, 2, 3)
    anchors: int = 2
    chunk: int = 1
    steps: int = 4
    history: int = 4


def anchor_size(model: WristModel) -> tuple[int, int]:
    """Height and width of the anchor images a model is measured with: as published where it runs at the published width,
    else 240x320."""
    return PUBLISHED_ANCHOR if model.config.anchor_width == PUBLISHED_ANCHOR[1] else (240, 320)


def anchor_set(views: int, hw: tuple[int, int]) -> AnchorSet:
    """An anchor set of the moving pattern, at time 0."""
    return AnchorSet(0, tuple(f'view{v}' for v in range(views)), pictures(0, views, *hw))


def cloud_before_wrist(model: WristModel, shapes: Shapes) -> Reconstruction:
    """A reconstruction of the model's sizes whose cloud fills the wrist's view, whatever the weights say."""
    hw = input_size(shapes.anchor_hw, model.config.anchor_width, model.stage1.config.patch_size)
    s = scene(hw=hw, count=shapes.anchors)
    scale = np.array([[shapes.wrist_hw[1] / hw[1]], [shapes.wrist_hw[0] / hw[0]], [1]])
    maps = (shapes.anchors, *hw)
    return Reconstruction(
        wrist=Camera(s['K'] * scale, s['T'], width=shapes.wrist_hw[1], height=shapes.wrist_hw[0]),
        anchors=(),
        points=torch.from_numpy(s['points']).view(*maps, 3).to(model.device),
        confidence=torch.ones(maps, device=model.device),
        colors=torch.from_numpy(s['colors']).view(*maps, 3).to(model.device),
    )
