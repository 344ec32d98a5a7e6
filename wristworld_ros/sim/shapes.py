"""Shapes of objects: surfaces of revolution (bowls, mugs, bottles, fruit, cartons) and things put together of primitives (tools, toys).

A shape is numbers alone. `objects.ShapedObjects` gives them to bodies of the compiled model, whose meshes all have the same
rings and faces, so that an episode has other shapes without a compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.sim.revolution import Surface, revolve

PARTS = 5  # primitives of a shape, at most
GRASPED = 0.033  # metres: largest radius of what a gripper closes on


@dataclass(frozen=True)
class Part:
    """A primitive. kind: box, cylinder, capsule, ellipsoid. size: as MuJoCo has it, metres. position [3] and quaternion [4], w first,
    in the shape's frame, whose origin is half_height above what it stands on. body: whether it has the body's own material."""

    kind: str
    size: tuple[float, float, float]
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quaternion: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    body: bool = False


@dataclass(frozen=True)
class Shape:
    """An object's shape. Metres.

    name: what it is. half_height: above and below its origin. radius: around its upright axis. contact: the one primitive that
    touches and is touched in its place. square: whether a gripper should be turned along its sides.
    """

    name: str
    half_height: float
    radius: float
    contact: Part
    surface: Surface | None = None
    parts: tuple[Part, ...] = ()
    square: bool = False


def sample_shape(rng: np.random.Generator, grasped: bool) -> Shape:
    """Any shape; with `grasped` one that a parallel gripper can close on from above."""
    makers = GRASPABLE if grasped else SHAPES
    return makers[rng.integers(len(makers))](rng, grasped)


def _turned(axis: str, angle: float) -> tuple[float, float, float, float]:
    """Quaternion of a turn about x, y or z, radians."""
    c, s = float(np.cos(angle / 2)), float(np.sin(angle / 2))
    return (c, *(s if axis == name else 0.0 for name in 'xyz'))


LYING = _turned('y', np.pi / 2)  # z becomes x


def _round(name: str, radius: float, half: float, surface: Surface, parts: tuple[Part, ...] = ()) -> Shape:
    return Shape(name, half, radius, Part('cylinder', (radius, half, 0)), surface, parts)


def _cup(rng, grasped: bool) -> Shape:
    """Mug, cup or glass: a wall, often a handle."""
    radius = rng.uniform(0.024, GRASPED) if grasped else rng.uniform(0.027, 0.048)
    half, wall = rng.uniform(0.03, 0.06), rng.uniform(0.002, 0.004)
    foot = radius * rng.uniform(0.65, 1.0)
    profile = [
        (0, -half),
        (foot, -half),
        (radius, half),
        (radius - wall, half),
        (foot - wall, wall - half),
        (0, wall - half),
    ]
    parts: tuple[Part, ...] = ()
    if not grasped and rng.random() < 0.7:
        out, thick, tall = rng.uniform(0.016, 0.026), rng.uniform(0.003, 0.006), half * rng.uniform(0.35, 0.6)
        near = radius * 0.9
        parts = (
            Part('capsule', (thick, tall, 0), (near + out, 0, 0), body=True),
            *(
                Part('capsule', (thick, out / 2, 0), (near + out / 2, 0, end * tall), LYING, body=True)
                for end in (-1, 1)
            ),
        )
    return _round('mug' if parts else 'cup', radius, half, revolve(profile), parts)


def _bowl(rng, grasped: bool) -> Shape:
    radius, half = rng.uniform(0.045, 0.09), rng.uniform(0.015, 0.035)
    foot, wall, power = radius * rng.uniform(0.25, 0.6), rng.uniform(0.002, 0.005), rng.uniform(0.4, 1.0)
    up = np.linspace(0, 1, 5)
    outer = [(foot + (radius - foot) * t**power, (2 * t - 1) * half) for t in up]
    inner = [(max(r - wall, 0), min(z + wall, half)) for r, z in outer[::-1]]
    return _round('bowl', radius, half, revolve([(0, -half), *outer, *inner, (0, wall - half)]))


def _plate(rng, grasped: bool) -> Shape:
    radius, half, wall = rng.uniform(0.06, 0.115), rng.uniform(0.005, 0.011), 0.003
    foot = radius * rng.uniform(0.55, 0.8)
    profile = [
        (0, -half), (foot, -half), (radius, half - wall), (radius, half), (foot, wall - half), (0, wall - half),
    ]  # fmt: skip
    return _round('plate', radius, half, revolve(profile))


def _bottle(rng, grasped: bool) -> Shape:
    radius = rng.uniform(0.018, 0.032) if grasped else rng.uniform(0.018, 0.042)
    half, neck = rng.uniform(0.04, 0.1), radius * rng.uniform(0.25, 0.6)
    shoulder, rise = half * rng.uniform(0.1, 0.6), half * rng.uniform(0.08, 0.4)
    edge = 0.15 * radius
    top = min(shoulder + rise, 0.9 * half)
    bend = [(neck + (radius - neck) * (1 - t) ** 1.5, shoulder + (top - shoulder) * t) for t in (0.33, 0.66)]
    profile = [
        (0, -half), (radius - edge, -half), (radius, edge - half), (radius, shoulder), *bend, (neck, top), (neck, half), (0, half),
    ]  # fmt: skip
    cap = Part('cylinder', (neck * 1.2, half * 0.08, 0), (0, 0, half * 0.94))
    return _round('bottle', radius, half, revolve(profile), (cap,) if rng.random() < 0.7 else ())


def _jar(rng, grasped: bool) -> Shape:
    radius = rng.uniform(0.022, GRASPED) if grasped else rng.uniform(0.022, 0.05)
    half, edge = rng.uniform(0.02, 0.06), rng.uniform(0.05, 0.3) * radius
    profile = [
        (0, -half), (radius - edge, -half), (radius, edge - half), (radius, half - edge), (radius - edge, half), (0, half),
    ]  # fmt: skip
    lid = Part('cylinder', (radius * rng.uniform(0.8, 1.02), half * 0.16, 0), (0, 0, half * 0.86))
    label = Part('cylinder', (radius * 1.004, half * rng.uniform(0.2, 0.5), 0))
    parts = tuple(part for part in (lid, label) if rng.random() < 0.6)
    return _round('jar', radius * 1.02, half, revolve(profile), parts)


def _fruit(rng, grasped: bool) -> Shape:
    radius = rng.uniform(0.02, GRASPED) if grasped else rng.uniform(0.018, 0.045)
    half, dip, pear = radius * rng.uniform(0.75, 1.2), rng.uniform(0, 0.25), rng.uniform(0, 0.3)
    turn = np.linspace(-np.pi / 2, np.pi / 2, 12)
    profile = [
        (radius * np.cos(a) * (1 - pear * max(np.sin(a), 0)), half * (np.sin(a) - dip * np.sign(np.sin(a)) * np.sin(a) ** 8))
        for a in turn
    ]  # fmt: skip
    low = min(z for _, z in profile)
    stem = Part('capsule', (0.0015, 0.006, 0), (0, 0, half * (1 - dip) + 0.004))
    return _round('fruit', radius, -low, revolve(profile), (stem,) if rng.random() < 0.6 else ())


def _carton(rng, grasped: bool) -> Shape:
    wide = rng.uniform(0.018, 0.03) if grasped else rng.uniform(0.018, 0.05)
    deep = wide if grasped and rng.random() < 0.5 else rng.uniform(0.015, 0.03 if grasped else 0.05)
    half, slope = rng.uniform(0.02, 0.09), rng.uniform(0.3, 1.0)
    shoulder = half if rng.random() < 0.5 else half * rng.uniform(0.4, 0.9)
    roof = [] if shoulder == half else [(slope, half)]
    profile = [(0, -half), (1, -half), (1, shoulder), *roof, (0, half)]
    surface = revolve(profile, (wide, deep), rng.uniform(5, 12))
    return Shape('carton', half, float(np.hypot(wide, deep)), Part('box', (wide, deep, half)), surface, square=True)


def _tray(rng, grasped: bool) -> Shape:
    wide, deep, half = rng.uniform(0.05, 0.1), rng.uniform(0.04, 0.08), rng.uniform(0.008, 0.025)
    rim, wall = rng.uniform(0.85, 1.0), 0.003
    profile = [(0, -half), (rim, -half), (1, half), (0.95, half), (rim - 0.05, wall - half), (0, wall - half)]
    surface = revolve(profile, (wide, deep), rng.uniform(2, 9))
    return Shape('tray', half, float(np.hypot(wide, deep)), Part('box', (wide, deep, half)), surface, square=True)


def _ring(rng, grasped: bool) -> Shape:
    radius, half = rng.uniform(0.025, 0.05), rng.uniform(0.006, 0.025)
    hole = radius * rng.uniform(0.4, 0.85)
    return _round(
        'ring', radius, half, revolve([(hole, -half), (radius, -half), (radius, half), (hole, half), (hole, -half)])
    )


def _pot(rng, grasped: bool) -> Shape:
    radius, half, wall = rng.uniform(0.04, 0.075), rng.uniform(0.02, 0.04), 0.003
    profile = [
        (0, -half),
        (radius * 0.95, -half),
        (radius, half),
        (radius - wall, half),
        (radius - wall, wall - half),
        (0, wall - half),
    ]
    handles = tuple(
        Part('capsule', (0.004, 0.014, 0), (side * (radius + 0.006), 0, half * 0.6), _turned('x', np.pi / 2))
        for side in (-1, 1)
    )
    lid = (
        Part('ellipsoid', (radius * 1.01, radius * 1.01, 0.012), (0, 0, half)),
        Part('cylinder', (0.007, 0.009, 0), (0, 0, half + 0.014)),
    )
    long = (Part('capsule', (0.006, 0.035, 0), (radius + 0.035, 0, half * 0.6), LYING),)
    parts = (handles if rng.random() < 0.5 else long) + (lid if rng.random() < 0.5 else ())
    return _round('pot', radius, half, revolve(profile), parts)


def _ellipsoid(rng, grasped: bool) -> Shape:
    size = rng.uniform(0.016, 0.032, 3) if grasped else rng.uniform(0.014, 0.045, 3)
    part = Part('ellipsoid', tuple(map(float, size)), body=True)
    return Shape('ellipsoid', float(size[2]), float(max(size[:2])), part, parts=(part,))


def _capsule(rng, grasped: bool) -> Shape:
    radius = rng.uniform(0.014, 0.03)
    length = rng.uniform(0.01, 0.025 if grasped else 0.06)
    part = Part('capsule', (radius, length, 0), quaternion=LYING, body=True)
    return Shape('capsule', radius, radius + length, part, parts=(part,))


def _lying(name: str, parts: tuple[Part, ...], long: float, wide: float, half: float) -> Shape:
    """What lies flat along x: `long` and `wide` are half of its length and width."""
    return Shape(name, half, float(np.hypot(long, wide)), Part('box', (long, wide, half)), parts=parts, square=True)


def _tool(rng, grasped: bool) -> Shape:
    """Hammer, screwdriver, spoon or brush: a grip along x with something at its end."""
    thick, long = rng.uniform(0.006, 0.013), rng.uniform(0.035, 0.065)
    grip = Part(str(rng.choice(['capsule', 'cylinder'])), (thick, long, 0), (-long * 0.5, 0, 0), LYING, body=True)
    kind = rng.integers(4)
    end = long * 0.5
    if kind == 0:
        head = thick * rng.uniform(1.0, 1.2)
        tip = (Part('box', (head, rng.uniform(0.022, 0.04), head), (end + head, 0, 0)),)
        return _lying('hammer', (grip, *tip), long * 1.2, 0.035, max(head, thick))
    if kind == 1:
        shaft = rng.uniform(0.02, 0.04)
        tip = (Part('cylinder', (0.0025, shaft, 0), (end + shaft, 0, 0), LYING),)
        return _lying('screwdriver', (grip, *tip), long + shaft, thick, thick)
    if kind == 2:
        wide = rng.uniform(0.016, 0.026)
        tip = (
            Part('capsule', (thick * 0.4, long * 0.4, 0), (end, 0, 0), LYING, body=True),
            Part(
                'ellipsoid', (wide * 1.35, wide, thick * 0.7), (end + long * 0.4 + wide, 0, 0), body=rng.random() < 0.5
            ),
        )
        return _lying('spoon', (grip, *tip), long * 1.2 + wide, wide, thick)
    wide = rng.uniform(0.018, 0.035)
    tip = (
        Part('box', (0.014, wide, thick * 0.8), (end + 0.014, 0, 0), body=True),
        Part('box', (0.012, wide * 0.95, thick * 0.7), (end + 0.04, 0, 0)),
    )
    return _lying('brush', (grip, *tip), long + 0.03, wide, thick)


def _letter(rng, grasped: bool) -> Shape:
    """A block in the shape of an L, a T or a cross."""
    thin, half = rng.uniform(0.008, 0.016), rng.uniform(0.008, 0.025)
    long, wide = rng.uniform(0.025, 0.055), rng.uniform(0.02, 0.045)
    at = (long - thin) * rng.choice([-1.0, 0.0, 1.0])
    off = wide if rng.random() < 0.6 else 0.0
    parts = (
        Part('box', (long, thin, half), body=True),
        Part('box', (thin, wide, half * 0.999), (float(at), off, 0), body=rng.random() < 0.6),
    )
    return _lying('letter', parts, long, thin + off + wide, half)


def _car(rng, grasped: bool) -> Shape:
    long, wide, half = rng.uniform(0.03, 0.05), rng.uniform(0.014, 0.024), rng.uniform(0.014, 0.022)
    wheel = half * 0.5
    axles = tuple(
        Part('cylinder', (wheel, wide * 1.05, 0), (end * long * 0.6, 0, wheel - half), _turned('x', np.pi / 2))
        for end in (-1, 1)
    )
    parts = (
        Part('box', (long, wide, half * 0.35), (0, 0, -half * 0.15), body=True),
        Part(
            'box',
            (long * rng.uniform(0.4, 0.6), wide * 0.9, half * 0.45),
            (-long * 0.15, 0, half * 0.5),
            body=rng.random() < 0.5,
        ),
        *axles,
    )
    return _lying('car', parts, long, wide, half)


def _device(rng, grasped: bool) -> Shape:
    """A remote control, a telephone or a box of buttons."""
    long, wide, half = rng.uniform(0.04, 0.085), rng.uniform(0.018, 0.04), rng.uniform(0.004, 0.014)
    screen = Part('box', (long * 0.4, wide * 0.8, 0.001), (long * 0.45, 0, half))
    keys = tuple(Part('cylinder', (wide * 0.3, 0.002, 0), (-long * x, 0, half)) for x in (0.2, 0.65))
    return _lying('device', (Part('box', (long, wide, half), body=True), screen, *keys), long, wide, half)


def _banana(rng, grasped: bool) -> Shape:
    thick, long, bend = rng.uniform(0.011, 0.019), rng.uniform(0.02, 0.03), rng.uniform(0.3, 0.7)
    parts = [Part('capsule', (thick, long, 0), quaternion=LYING, body=True)]
    for end in (-1, 1):
        x, y = long * (1 + np.cos(bend)), long * np.sin(bend)  # of the middle of a piece that is turned by the bend
        quaternion = (Rotation.from_euler('z', end * bend) * Rotation.from_euler('y', np.pi / 2)).as_quat(
            scalar_first=True
        )
        parts.append(Part('capsule', (thick * 0.85, long, 0), (end * x, y, 0), tuple(quaternion), body=True))
    return _lying('banana', tuple(parts), long * 2.8, thick * 1.5, thick)


Maker = Callable[[np.random.Generator, bool], Shape]
# Each is as likely as it stands here often.
SHAPES: tuple[Maker, ...] = (
    _cup, _cup, _bowl, _plate, _bottle, _jar, _fruit, _carton, _carton, _tray, _ring, _pot, _ellipsoid, _capsule, _tool, _tool,
    _letter, _car, _device, _banana,
)  # fmt: skip
GRASPABLE: tuple[Maker, ...] = (_cup, _bottle, _jar, _fruit, _carton, _carton, _ellipsoid, _capsule)
