"""A robot description (URDF): where its links are for given joint angles, and points on its surface."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np

from wristworld_ros.errors import UserError, require_package
from wristworld_ros.types import RobotPoints

SPACING = 0.005  # metres between surface points
# Of a mesh, unless that is finer than a millimetre: fingers are small and near to the wrist camera.
_LEAST_POINTS = 6000
_FINEST = 0.001  # metres
_OVERSAMPLING = 4  # random points for each that is kept: evenness
KINDS = ('fixed', 'revolute', 'continuous', 'prismatic')
_GREY = (205, 205, 205)
_MAX_POINTS = 200_000


@dataclass(frozen=True)
class _Joint:
    """kind: fixed, revolute, continuous or prismatic. origin: T_parent_child at zero. mimic: joint, multiplier, offset."""

    name: str
    kind: str
    parent: str
    child: str
    origin: np.ndarray
    axis: np.ndarray
    mimic: tuple[str, float, float] | None


class RobotModel:
    """Kinematics and surface of a robot. The surface is sampled once; afterwards it is only moved.

    joint_names: joints that move by themselves. link_names: of all links. root: the link that no joint moves. upper: upper
    limits of joints that have one, radians or metres. missing_meshes: files of visual meshes that were not found, or cannot be
    read and say so; their links have no surface.
    """

    def __init__(
        self, joints: list[_Joint], links: tuple[str, ...], surfaces: dict[str, tuple], missing: tuple[str, ...]
    ):
        children = {joint.child for joint in joints}
        self.link_names, self.missing_meshes = links, missing
        self.upper: dict[str, float] = {}
        self.root = next(link for link in links if link not in children)
        self._joints = _in_order(joints, self.root)
        self.joint_names = tuple(j.name for j in self._joints if j.kind != 'fixed' and j.mimic is None)
        self._links = [link for link in links if link in surfaces]
        self._points = [surfaces[link][0] for link in self._links]
        self._normals = [surfaces[link][1] for link in self._links]
        self._colors = np.concatenate([np.zeros((0, 3), np.uint8), *(surfaces[link][2] for link in self._links)])
        self._names = np.repeat(np.array(self._links, dtype=str), [len(points) for points in self._points])

    @classmethod
    def from_urdf(cls, text: str, spacing: float = SPACING) -> RobotModel:
        """Read a robot description and sample its visual geometry.

        Args:
            text: URDF. Meshes are named by package://, file:// or plain paths.
            spacing: About the distance of neighbouring surface points, metres.

        Raises:
            UserError: It is no URDF, or its links do not form one tree.
        """
        require_package('yourdfpy', 'robot', 'The robot description')
        robot = _parse(text)
        joints = [_joint(joint) for joint in robot.joint_map.values()]
        links = tuple(robot.link_map)
        _check_tree(joints, links)
        _check_joints(joints)
        missing: list[str] = []
        surfaces = {}
        for name, link in robot.link_map.items():
            parts = [part for visual in link.visuals if (part := _sampled(visual, robot, spacing, missing)) is not None]
            if parts:
                surfaces[name] = tuple(np.concatenate(values) for values in zip(*parts))
        model = cls(joints, links, surfaces, tuple(missing))
        limits = {name: joint.limit for name, joint in robot.joint_map.items() if joint.limit is not None}
        model.upper = {name: float(limit.upper) for name, limit in limits.items() if limit.upper is not None}
        return model

    def link_poses(self, joints: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Where the links are.

        Args:
            joints: Position of every joint of `joint_names`, radians or metres; others are ignored.

        Returns:
            T_root_link float64 [4, 4] by link.

        Raises:
            UserError: A joint is missing.
        """
        if lacking := [name for name in self.joint_names if name not in joints]:
            raise UserError(
                f'Joint states lack {", ".join(lacking)} of the robot description',
                'publish the states of all joints that it moves',
            )
        poses = {self.root: np.eye(4)}
        for joint in self._joints:
            poses[joint.child] = poses[joint.parent] @ joint.origin @ _motion(joint, joints)
        return poses

    def surface(self, joints: Mapping[str, float], base: str | None = None) -> RobotPoints:
        """The surface in the frame of the link `base` (None: the root); arguments and errors as of `link_poses`."""
        poses = self.link_poses(joints)
        if base is not None and base not in poses:
            raise UserError(f'The robot description has no link {base!r}', f'give one of {", ".join(self.link_names)}')
        T_base_root = np.linalg.inv(poses[base]) if base else np.eye(4)
        moved = [np.zeros((0, 3), np.float32)]
        turned = [np.zeros((0, 3), np.float32)]
        for link, points, normals in zip(self._links, self._points, self._normals, strict=True):
            T = (T_base_root @ poses[link]).astype(np.float32)
            moved.append(points @ T[:3, :3].T + T[:3, 3])
            turned.append(normals @ T[:3, :3].T)
        return RobotPoints(np.concatenate(moved), self._colors, self._names, np.concatenate(turned))


def _parse(text: str) -> Any:
    from xml.etree import ElementTree

    import yourdfpy

    logging.getLogger('yourdfpy').setLevel(logging.CRITICAL)
    try:
        ElementTree.fromstring(text)  # yourdfpy tries what is no XML once more, and tells what is wrong with that
        return yourdfpy.URDF.load(
            io.StringIO(text), build_scene_graph=False, load_meshes=False, build_collision_scene_graph=False
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f'The robot description is not a URDF that can be read ({reason.rstrip(".")})',
            'publish the text that xacro makes of your robot',
        ) from None


def _check_tree(joints: list[_Joint], links: tuple[str, ...]) -> None:
    children = [joint.child for joint in joints]
    unknown = {name for joint in joints for name in (joint.parent, joint.child)} - set(links)
    roots = set(links) - set(children)
    if unknown or len(roots) != 1 or len(set(children)) != len(children):
        what = f'names unknown links ({", ".join(sorted(unknown))})' if unknown else f'has {len(roots)} roots'
        raise UserError(f'The robot description {what} and is no tree of links', 'correct its joints')


def _joint(joint: Any) -> _Joint:
    mimic = joint.mimic and (joint.mimic.joint, _number(joint.mimic.multiplier, 1.0), _number(joint.mimic.offset, 0.0))
    axis = np.array([1.0, 0, 0]) if joint.axis is None else np.asarray(joint.axis, np.float64)
    origin = np.eye(4) if joint.origin is None else np.asarray(joint.origin, np.float64)
    return _Joint(
        joint.name, joint.type, joint.parent, joint.child, origin, axis / max(np.linalg.norm(axis), 1e-12), mimic
    )


def _number(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else float(value)


def _check_joints(joints: list[_Joint]) -> None:
    """Raise UserError for a joint of a kind that has no single position, or that follows one which does not move by itself."""
    free = {joint.name for joint in joints if joint.kind != 'fixed' and joint.mimic is None}
    for joint in joints:
        if joint.kind not in KINDS:
            raise UserError(
                f'Joint {joint.name} of the robot description is {joint.kind}',
                f'use joints that are {", ".join(KINDS)}',
            )
        if joint.mimic is not None and joint.mimic[0] not in free:
            raise UserError(
                f'Joint {joint.name} of the robot description follows {joint.mimic[0]}, which does not move by itself',
                'name a joint that does',
            )


def _in_order(joints: list[_Joint], root: str) -> list[_Joint]:
    """Parents before children."""
    ordered: list[_Joint] = []
    placed, left = {root}, list(joints)
    while left:
        ready = [joint for joint in left if joint.parent in placed]
        if not ready:
            raise UserError('The robot description has a loop of joints', 'correct its joints')
        ordered += ready
        placed |= {joint.child for joint in ready}
        left = [joint for joint in left if joint.child not in placed]
    return ordered


def _motion(joint: _Joint, joints: Mapping[str, float]) -> np.ndarray:
    T = np.eye(4)
    if joint.kind == 'fixed':
        return T
    if joint.mimic is None:
        q = float(joints[joint.name])
    else:
        source, multiplier, offset = joint.mimic
        q = multiplier * float(joints[source]) + offset
    if joint.kind == 'prismatic':
        T[:3, 3] = q * joint.axis
        return T
    x, y, z = joint.axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    T[:3, :3] = np.eye(3) + np.sin(q) * cross + (1 - np.cos(q)) * cross @ cross  # Rodrigues' formula
    return T


def _sampled(visual: Any, robot: Any, spacing: float, missing: list[str]) -> tuple[np.ndarray, ...] | None:
    """Points and normals float32 [N, 3] in the link's frame and colours uint8 [N, 3] of one visual; None where its mesh is
    missing."""
    import trimesh

    geometry = visual.geometry
    if geometry.mesh is not None:
        path = _find(geometry.mesh.filename)
        mesh = _load_mesh(path) if path else None
        if mesh is None:
            missing.append(geometry.mesh.filename + (' (cannot be read)' if path else ''))
            return None
        scale = np.asarray(geometry.mesh.scale if geometry.mesh.scale is not None else 1.0, np.float64)
        mesh.apply_transform(np.diag([*np.broadcast_to(scale, 3), 1.0]))
    elif geometry.box is not None:
        mesh = trimesh.creation.box(geometry.box.size)
    elif geometry.cylinder is not None:
        mesh = trimesh.creation.cylinder(geometry.cylinder.radius, geometry.cylinder.length)
    elif geometry.sphere is not None:
        mesh = trimesh.creation.icosphere(radius=geometry.sphere.radius)
    else:
        return None  # an empty geometry has no surface
    spacing = max(_FINEST, min(spacing, (mesh.area / _LEAST_POINTS) ** 0.5))
    count = min(_MAX_POINTS, max(20, int(_OVERSAMPLING * mesh.area / spacing**2)))
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=0)
    _, chosen = np.unique(np.floor(points / spacing).astype(np.int64), axis=0, return_index=True)
    points, faces = points[chosen], faces[chosen]
    colors = _colors(visual, robot, mesh, faces)
    origin = np.eye(4) if visual.origin is None else visual.origin
    normals = mesh.face_normals[faces] @ origin[:3, :3].T
    return (points @ origin[:3, :3].T + origin[:3, 3]).astype(np.float32), normals.astype(np.float32), colors


def _colors(visual: Any, robot: Any, mesh: Any, faces: np.ndarray) -> np.ndarray:
    """Of the description's material, else of the mesh, else light grey."""
    material = visual.material
    if material is not None and material.color is None:
        material = next((m for m in robot.robot.materials if m.name == material.name), material)
    if material is not None and material.color is not None:
        rgb = np.clip(np.asarray(material.color.rgba[:3], np.float64) * 255, 0, 255).astype(np.uint8)
        return np.broadcast_to(rgb, (len(faces), 3)).copy()
    if mesh.visual.kind in ('face', 'vertex'):
        return np.ascontiguousarray(mesh.visual.face_colors[faces, :3])
    diffuse = getattr(getattr(mesh.visual, 'material', None), 'main_color', None)
    rgb = np.asarray(_GREY if diffuse is None else diffuse[:3], np.uint8)
    return np.broadcast_to(rgb, (len(faces), 3)).copy()


def _load_mesh(path: Path) -> Any:
    import trimesh

    try:
        mesh = trimesh.load(path, force='mesh')
    except Exception:
        return None  # a file that holds no mesh is as good as none; it is listed
    return mesh if len(getattr(mesh, 'faces', ())) else None


def _find(filename: str) -> Path | None:
    """The file of a mesh's URI; None where it does not exist."""
    uri = urlparse(filename)
    if uri.scheme == 'package':
        inner = unquote(uri.path.lstrip('/'))
        shares = [
            Path(root) / 'share' / uri.netloc for root in os.environ.get('AMENT_PREFIX_PATH', '').split(':') if root
        ]
        shares += [Path(root) / uri.netloc for root in os.environ.get('ROS_PACKAGE_PATH', '').split(':') if root]
        candidates = [share / inner for share in shares]
    else:
        candidates = [Path(unquote(uri.path) if uri.scheme == 'file' else filename)]
    return next((path for path in candidates if path.is_file()), None)
