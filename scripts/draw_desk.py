"""Draw docs/images/desk.jpg: what a wrist looks like by what is known. `python scripts/draw_desk.py EPISODE`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from wristworld_ros import StreamSettings, VirtualWrist, load_model
from wristworld_ros.data.formats.native import read_episode
from wristworld_ros.data.ground_truth import read_ground_truth
from wristworld_ros.evaluation.knowledge import LEVELS, known_sets

PICTURE = Path(__file__).resolve().parents[1] / 'docs/images/desk.jpg'
MOMENTS = 3
SIZE = 224  # pixels of a wrist image in the picture


def main() -> None:
    """Draw one episode, with the weights that ship."""
    model = load_model('sim_tiny')
    truth = read_ground_truth(read_episode(Path(sys.argv[1])), model.config.wrist_hw, anchors=2)
    chosen = np.linspace(6, len(truth) - 1, MOMENTS).astype(int)
    columns = {
        'anchor left': truth.images[0, chosen],
        'anchor right': truth.images[1, chosen],
        'RGB': published(model, truth, LEVELS['rgb'])[chosen],
        'CALIBRATED': published(model, truth, replace(LEVELS['calibrated'], robot=True))[chosen],
        'RGBD': published(model, truth, replace(LEVELS['rgbd'], robot=True))[chosen],
        'true wrist': truth.wrist[chosen],
    }
    picture = np.concatenate([column(title, images) for title, images in columns.items()], axis=1)
    cv2.imwrite(str(PICTURE), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def published(model, truth, level) -> np.ndarray:
    """The wrist images of a stream that knows so much, uint8 [T, h, w, 3]."""
    wrist = VirtualWrist(model, StreamSettings())
    return np.stack([frame.image for anchors in known_sets(truth, level) for frame in wrist.push(anchors)])


def column(title: str, images: np.ndarray) -> np.ndarray:
    """Images [N, H, W, 3] one below the other, under their title."""
    width = round(SIZE * images.shape[2] / images.shape[1])
    cells = [cv2.resize(image, (width, SIZE), interpolation=cv2.INTER_CUBIC) for image in images]
    head = np.full((34, width, 3), 255, np.uint8)
    cv2.putText(head, title, (6, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (30, 30, 30), 1, cv2.LINE_AA)
    framed = [cv2.copyMakeBorder(cell, 0, 4, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for cell in cells]
    return cv2.copyMakeBorder(np.concatenate([head, *framed]), 0, 0, 0, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))


if __name__ == '__main__':
    main()
