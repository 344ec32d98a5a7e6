"""Shapes of objects are closed, stand on the table, and fit what the simulator takes them for."""

import numpy as np
import pytest

from wristworld_ros.sim.revolution import RINGS, SEGMENTS, faces, revolve
from wristworld_ros.sim.shapes import GRASPABLE, GRASPED, PARTS, SHAPES, sample_shape


def volume(surface):
    """Signed volume, m^3: positive where all triangles are seen from outside anticlockwise."""
    a, b, c = (surface.vertices[faces()[:, corner]] for corner in range(3))
    return (a * np.cross(b, c)).sum() / 6


def test_a_cylinder_has_its_volume_and_normals_that_point_outwards():
    surface = revolve([(0, -0.05), (0.03, -0.05), (0.03, 0.05), (0, 0.05)])
    assert surface.vertices.shape == surface.normals.shape == (RINGS * SEGMENTS, 3)
    assert volume(surface) == pytest.approx(np.pi * 0.03**2 * 0.1, rel=0.02)
    away = surface.vertices + 1e-3 * surface.normals
    grown = np.maximum(np.hypot(*away[:, :2].T) - 0.03, np.abs(away[:, 2]) - 0.05)
    assert (grown > 5e-4).all()


def test_a_cross_section_of_high_exponent_is_nearly_a_box():
    surface = revolve([(0, -0.05), (1, -0.05), (1, 0.05), (0, 0.05)], (0.02, 0.04), 12)
    assert volume(surface) == pytest.approx(0.04 * 0.08 * 0.1, rel=0.06)


@pytest.mark.parametrize('make', dict.fromkeys(SHAPES), ids=lambda make: make.__name__.strip('_'))
def test_every_shape_is_closed_and_within_its_half_height_and_radius(make):
    rng = np.random.default_rng(0)
    for _ in range(20):
        check_shape(make(rng, False))


def check_shape(shape):
    assert 0.003 < shape.half_height < 0.12 and 0.01 < shape.radius < 0.16 and len(shape.parts) <= PARTS
    assert shape.surface is not None or shape.parts
    if shape.surface is not None:
        assert volume(shape.surface) > 1e-7
        np.testing.assert_allclose(np.linalg.norm(shape.surface.normals, axis=1), 1, atol=1e-6)
        low, high = shape.surface.vertices.min(0), shape.surface.vertices.max(0)
        assert low[2] == pytest.approx(-shape.half_height, rel=1e-6)
        assert np.abs([low[:2], high[:2]]).max() <= shape.radius + 1e-9
    for part in shape.parts:
        assert np.linalg.norm(part.quaternion) == pytest.approx(1)
        assert np.linalg.norm(part.position[:2]) <= shape.radius + 0.08  # handles reach beyond


def test_what_is_to_be_grasped_fits_between_open_fingers():
    rng = np.random.default_rng(0)
    assert set(GRASPABLE) <= set(SHAPES)
    for _ in range(100):
        shape = sample_shape(rng, True)
        narrow = min(shape.contact.size[:2]) if shape.contact.kind in ('box', 'ellipsoid') else shape.contact.size[0]
        assert narrow <= 1.03 * GRASPED, shape.name
