"""Folders of calibration images: what was seen, where the hand was, and the camera's intrinsics.

A folder holds
- ``camera_info.yaml`` (or ``camera.yaml``), as ROS camera calibration writes it (image_width, image_height, camera_matrix.data and
  distortion_coefficients.data), or as ``ros2 topic echo --once`` prints the message (width, height, k and d);
- ``poses.csv`` with the header ``image,x,y,z,qx,qy,qz,qw``: the hand in the robot's base at each image, metres.
File names are relative to the folder. ViSP's layout (``*_camera.xml``, ``*_image-N.png``, ``*_pose_rPe_N.yaml`` with a
translation and a rotation vector) is read as it is.
"""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import Size, convert, read_bytes
from wristworld_ros.robot.board import Intrinsics

POSE_COLUMNS = ('image', 'x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')


class _Data(msgspec.Struct):
    data: Annotated[list[float], msgspec.Meta(max_length=64)]


class _CameraFile(msgspec.Struct):
    image_width: Size
    image_height: Size
    camera_matrix: _Data
    distortion_coefficients: _Data | None = None
    distortion_model: str = 'plumb_bob'


class _CameraMessage(msgspec.Struct):
    width: Size
    height: Size
    k: Annotated[list[float], msgspec.Meta(min_length=9, max_length=9)]
    d: Annotated[list[float], msgspec.Meta(max_length=64)] = []
    distortion_model: str = 'plumb_bob'

    def as_file(self) -> _CameraFile:
        return _CameraFile(self.width, self.height, _Data(self.k), _Data(self.d), self.distortion_model or 'plumb_bob')


def read_poses(folder: Path) -> tuple[list[Path], np.ndarray]:
    """Images and the hand's poses T_base_hand, float64 [P, 4, 4], metres, of a folder.

    Raises:
        UserError: There are none, or a file does not hold what it must.
    """
    if (folder / 'poses.csv').exists():
        rows = read_table(folder / 'poses.csv', POSE_COLUMNS)
        numbers = np.array([[_number(row[key], folder / 'poses.csv', key) for key in POSE_COLUMNS[1:]] for row in rows])
        if (abs(np.linalg.norm(numbers[:, 3:], axis=1) - 1) > 0.02).any():
            raise UserError(
                f'{folder / "poses.csv"}: a quaternion has not length 1', 'give qx, qy, qz, qw in this order'
            )
        return [folder / row['image'] for row in rows], rigid(numbers[:, :3], Rotation.from_quat(numbers[:, 3:]))
    found = sorted(folder.glob('*_pose_rPe_*.yaml'), key=lambda path: int(re.findall(r'\d+', path.stem)[-1]))
    if not found:
        raise UserError(f'{folder} has no poses.csv', f'write one with the header {",".join(POSE_COLUMNS)}')
    images, vectors = [], []
    for path in found:
        number = re.findall(r'\d+', path.stem)[-1]
        image = next(iter(sorted(folder.glob(f'*image-{number}.png'))), None)
        if image is None:
            raise UserError(f'{path} has no image *image-{number}.png beside it', 'add it, or remove the pose')
        images.append(image)
        vectors.append(np.ravel(convert(load_yaml(path), _Data6, str(path), 'correct it').data))
    numbers = np.array(vectors)
    return images, rigid(numbers[:, :3], Rotation.from_rotvec(numbers[:, 3:]))


def _read_camera(path: Path) -> _CameraFile:
    fix = 'write it as ROS camera calibration does, or save what `ros2 topic echo --once` prints of camera_info'
    content = load_yaml(path, fix)
    if isinstance(content, dict) and 'k' in content:
        return convert(content, _CameraMessage, str(path), fix).as_file()
    return convert(content, _CameraFile, str(path), fix)


class _Data6(msgspec.Struct):
    data: Annotated[
        list[Annotated[list[float], msgspec.Meta(min_length=1, max_length=1)]], msgspec.Meta(min_length=6, max_length=6)
    ]


def read_intrinsics(folder: Path) -> Intrinsics:
    """Intrinsics of a folder's camera_info.yaml or camera.yaml, or of ViSP's *_camera.xml.

    Raises:
        UserError: There is none, or it does not hold what it must.
    """
    path = folder / 'camera.yaml'
    path = path if path.exists() else folder / 'camera_info.yaml'
    visp = sorted(folder.glob('*camera.xml'))
    if not path.exists() and visp:
        return _visp_intrinsics(visp[0])
    given = _read_camera(path)
    if len(given.camera_matrix.data) != 9:
        raise UserError(f'{path}: camera_matrix.data has {len(given.camera_matrix.data)} numbers', 'give 9')
    distortion = np.array(given.distortion_coefficients.data if given.distortion_coefficients else [])
    if given.distortion_model not in ('plumb_bob', 'rational_polynomial') or distortion.size not in (0, 4, 5, 8):
        raise UserError(
            f'{path}: distortion {given.distortion_model} with {distortion.size} numbers is not known',
            'rectify the images, or give plumb_bob with 4 or 5 numbers or rational_polynomial with 8',
        )
    K = np.array(given.camera_matrix.data).reshape(3, 3)
    return Intrinsics(K, distortion, given.image_width, given.image_height)


def load_yaml(path: Path, fix: str = 'correct it') -> Any:
    """What a YAML file holds, without the '---' with which ROS ends a message; UserError where it cannot be read."""
    text = read_bytes(path, fix, 1 << 20).decode('utf-8', 'replace').rstrip().removesuffix('---')
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, 'problem_mark', None)
        where = f', line {mark.line + 1}' if mark else ''
        raise UserError(f'{path}{where} is not YAML', fix) from None


def rigid(translation: np.ndarray, rotation: Rotation) -> np.ndarray:
    """Float64 [P, 4, 4] of translations [P, 3] and P rotations."""
    T = np.tile(np.eye(4), (len(translation), 1, 1))
    T[:, :3, :3] = rotation.as_matrix()
    T[:, :3, 3] = translation
    return T


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header that holds `columns`; UserError where it has none or a row is short."""
    text = read_bytes(path, 'write it').decode('utf-8-sig', 'replace')
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f'{path} has no column {missing[0]}', f'give the header {",".join(columns)}')
    rows = list(reader)
    if not rows or any(None in row or None in row.values() for row in rows):
        raise UserError(f'{path} is empty or has a row of another length than its header', 'correct it')
    return rows


def _number(text: str, path: Path, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f'{path}, {column}: {text!r} is not a number', 'correct it')
    return value


def _visp_intrinsics(path: Path) -> Intrinsics:
    try:
        camera = ElementTree.fromstring(read_bytes(path, limit=1 << 20)).find('camera')
        value = {
            tag: float(camera.find(f'.//{tag}').text) for tag in ('px', 'py', 'u0', 'v0', 'image_width', 'image_height')
        }
    except (ElementTree.ParseError, AttributeError, TypeError, ValueError):
        raise UserError(f"{path} is not one of ViSP's camera files", 'write a camera.yaml beside it') from None
    K = np.array([[value['px'], 0, value['u0']], [0, value['py'], value['v0']], [0, 0, 1]])
    return Intrinsics(K, np.empty(0), int(value['image_width']), int(value['image_height']))
