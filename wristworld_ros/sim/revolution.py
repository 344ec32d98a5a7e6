"""Surfaces of revolution, all with the same rings and faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POINTS = 14  # of a profile
SEGMENTS = 24  # around the axis
RINGS = 2 * (POINTS - 1)  # each piece of a profile has rings of its own, so that edges can be sharp
SMOOTH = np.cos(np.radians(50))  # pieces of a profile that meet at less are shaded as one
AXIS = 1e-4  # metres: radius of a profile's ends


@dataclass(frozen=True)
class Surface:
    """A surface of revolution: vertices and unit normals, float64 [RINGS * SEGMENTS, 3], metres."""

    vertices: np.ndarray
    normals: np.ndarray


def faces() -> np.ndarray:
    """Triangles of every surface, int [N, 3], seen from outside anticlockwise."""
    found = []
    for ring in range(0, RINGS, 2):
        for i in range(SEGMENTS):
            a, b = ring * SEGMENTS + i, ring * SEGMENTS + (i + 1) % SEGMENTS
            found += [(a, b, b + SEGMENTS), (a, b + SEGMENTS, a + SEGMENTS)]
    return np.array(found)


def revolve(profile: list[tuple[float, float]], scale=(1.0, 1.0), exponent: float = 2.0) -> Surface:
    """The surface of a profile.

    Args:
        profile: Radius and height of its points, metres, from the axis below, outwards and up; at most POINTS.
        scale: Of the cross-section along x and y.
        exponent: Of the cross-section, a superellipse: 2 is round, 8 nearly a square.
    """
    points = _subdivided(np.array(profile, float))
    points[:, 0] = np.maximum(points[:, 0], AXIS)
    around = np.linspace(0, 2 * np.pi, SEGMENTS, endpoint=False)
    cross = _superellipse(around, exponent) * scale
    tangent = (_superellipse(around + 1e-4, exponent) - _superellipse(around - 1e-4, exponent)) * scale
    outward = np.stack([tangent[:, 1], -tangent[:, 0]], 1)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    ends = np.stack([points[:-1], points[1:]], 1).reshape(-1, 2)  # [RINGS, 2]
    normal = _profile_normals(points)
    vertices = np.concatenate(
        [ends[:, None, :1] * cross[None], np.broadcast_to(ends[:, None, 1:], (RINGS, SEGMENTS, 1))], 2
    )
    inwards = (cross * outward).sum(1)[None, :, None]
    normals = np.concatenate([normal[:, None, :1] * outward[None], normal[:, None, 1:] * inwards], 2)
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-9)
    return Surface(vertices.reshape(-1, 3), normals.reshape(-1, 3))


def _subdivided(points: np.ndarray) -> np.ndarray:
    """The same polyline of POINTS points: the longest pieces are halved."""
    while len(points) < POINTS:
        longest = int(np.linalg.norm(np.diff(points, axis=0), axis=1).argmax())
        middle = points[longest : longest + 2].mean(0)
        points = np.insert(points, longest + 1, middle, axis=0)
    return points


def _superellipse(angle: np.ndarray, exponent: float) -> np.ndarray:
    direction = np.stack([np.cos(angle), np.sin(angle)], 1)
    return direction / (np.abs(direction) ** exponent).sum(1, keepdims=True) ** (1 / exponent)


def _profile_normals(points: np.ndarray) -> np.ndarray:
    """Normals (radius, height) at both ends of every piece, [RINGS, 2]."""
    along = np.diff(points, axis=0)
    own = np.stack([along[:, 1], -along[:, 0]], 1)
    own /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-9)
    ends = np.repeat(own, 2, axis=0)
    for joint in range(1, len(own)):
        if own[joint - 1] @ own[joint] > SMOOTH:
            ends[2 * joint - 1] = ends[2 * joint] = own[joint - 1] + own[joint]
    return ends
