"""Pictures and plots of a calibration's report."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from wristworld_ros.apps.demo.plots import BLUE, MUTED, ORANGE, RED, STYLE
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.robot.description import SPACING
from wristworld_ros.robot.surface import visible_points
from wristworld_ros.types import RobotPoints

WIDTH = 480  # pixels of a picture in the page
FOUND, BEFORE, AFTER = (70, 220, 110), (255, 150, 40), (60, 130, 255)  # RGB


def depth_picture(depth: np.ndarray) -> np.ndarray:
    """Depth [H, W] as uint8 [H, W, 3] greys, near is bright, black where unknown."""
    known = depth > 0
    low, high = np.quantile(depth[known], [0.01, 0.99]) if known.any() else (0, 1)
    grey = np.where(known, 230 - 170 * ((depth - low) / max(high - low, 1e-6)).clip(0, 1), 0)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, 2)


def arm_over(
    picture: np.ndarray, surface: RobotPoints, camera: Intrinsics, T_base_camera: np.ndarray, color
) -> np.ndarray:
    """The visible surface of the arm, half transparent over a picture, as a camera at a place would see it."""
    assert surface.normals is not None  # of `RobotModel`
    points = surface.points.astype(np.float64)
    index = visible_points(points, surface.normals.astype(np.float64), camera, T_base_camera, SPACING)
    scale = WIDTH / camera.width
    image = _scaled(picture, scale)
    if not len(index):
        return image
    pixels = camera.project((points[index] - T_base_camera[:3, 3]) @ T_base_camera[:3, :3])
    mask = np.zeros(image.shape[:2], np.uint8)
    x, y = np.rint((pixels + 0.5) * scale - 0.5).astype(int).T
    mask[y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)] = 255
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    image[mask > 0] = (0.55 * image[mask > 0] + 0.45 * np.array(color)).astype(np.uint8)
    edges = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    cv2.drawContours(image, edges, -1, color, 1, cv2.LINE_AA)
    return image


def board_over(picture: np.ndarray, found: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The part of a picture [H, W, 3] that shows the board, with its corners: found, and where two answers put them; [N, 2]."""
    everything = np.concatenate([found, before, after])
    low, high = everything.min(0), everything.max(0)
    margin = 0.15 * float((high - low).max()) + 10
    x0, y0 = np.floor(low - margin).astype(int).clip(0)
    x1, y1 = np.minimum(np.ceil(high + margin).astype(int), [picture.shape[1], picture.shape[0]])
    scale = WIDTH / (x1 - x0)
    image = _scaled(picture[y0:y1, x0:x1], scale)
    for corners, color, radius in ((found, FOUND, 6), (before, BEFORE, 4), (after, AFTER, 2)):
        for x, y in (corners - (x0, y0) + 0.5) * scale - 0.5:
            cv2.circle(image, (round(float(x) * 16), round(float(y) * 16)), radius * 16, color, 1, cv2.LINE_AA, 4)
    return image


def bars(names: Sequence[str], values: np.ndarray, label: str, bad: Sequence[int] = ()) -> str:
    """A bar for each pose, those in `bad` red. values: [P], or [P, 2] for two plots one above the other, `label` 'a|b'."""
    columns = values.reshape(len(values), -1).T

    def fill(figure):
        axes = np.atleast_1d(figure.subplots(len(columns), 1, sharex=True))
        for axis, heights, text in zip(axes, columns, label.split('|')):
            colors = [RED if i in bad else BLUE for i in range(len(heights))]
            axis.bar(range(len(heights)), np.nan_to_num(heights), color=colors, width=0.65)
            axis.axhline(float(np.nanmedian(heights)), color=MUTED, lw=1, ls=(0, (3, 2)))
            axis.set_ylabel(text)
            axis.grid(axis='x', visible=False)
        axes[-1].set_xticks(
            range(len(names)), names, rotation=30 if len(names) > 6 else 0, ha='right' if len(names) > 6 else 'center'
        )

    return _svg(fill, 1.5 + 1.3 * len(columns))


def spread(errors: np.ndarray) -> str:
    """Where corners lie about where the answer puts them. errors: [N, 2], pixels."""

    def fill(figure):
        axes = figure.subplots(1, 2, width_ratios=[1, 1.6])
        axes[0].scatter(*errors.T, s=8, color=BLUE, alpha=0.5, lw=0)
        reach = max(float(np.quantile(np.abs(errors), 0.995)) * 1.15, 0.05)
        axes[0].set(xlim=(-reach, reach), ylim=(reach, -reach), aspect='equal', xlabel='x, pixels', ylabel='y, pixels')
        axes[1].hist(np.linalg.norm(errors, axis=1), bins=40, color=BLUE, alpha=0.8)
        axes[1].set(xlabel='distance, pixels', ylabel='corners')

    return _svg(fill, 3.0)


def before_and_after(before: np.ndarray, after: np.ndarray) -> str:
    """How far measured points lie from the arm, with the guess and with the answer. before, after: [N], metres, cut at 0.1."""

    def fill(figure):
        axis = figure.subplots()
        edges = np.linspace(0, 100, 81)
        for values, color, name in ((before, ORANGE, 'with the guess'), (after, BLUE, 'calibrated')):
            text = f'{name} (median {1e3 * float(np.median(values)):.1f} mm)'
            axis.hist(np.minimum(1e3 * values, 99.9), bins=edges, color=color, alpha=0.65, label=text)
        axis.set(
            xlabel='distance to the visible surface of the arm, millimetres (100: that or more)',
            ylabel='points',
            yscale='log',
        )
        axis.legend(ncol=2, loc='lower left', bbox_to_anchor=(-0.01, 1.0), fontsize=8.5)

    return _svg(fill, 2.6)


def _scaled(picture: np.ndarray, scale: float) -> np.ndarray:
    height, width = picture.shape[:2]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.ascontiguousarray(
        cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=method)
    )


def _svg(fill: Callable, height: float) -> str:
    """A figure as an SVG element, without the head of an XML file."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, height), layout='constrained')
        FigureCanvasSVG(figure)
        fill(figure)
        file = io.StringIO()
        figure.savefig(file, format='svg', metadata={'Date': None})
    text = file.getvalue()
    return text[text.index('<svg') :]
