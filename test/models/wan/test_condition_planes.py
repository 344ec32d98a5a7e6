"""Condition planes: hit pixels stay, holes are filled, depth is inverted."""

import pytest
import torch

from wristworld_ros.models.wan.condition_planes import NEAREST_DEPTH, condition_planes, fill_holes


@pytest.mark.parametrize('size', [(16, 16), (37, 53), (1, 5)])
def test_hit_pixels_stay_and_holes_take_colours_from_around(size):
    torch.manual_seed(0)
    image = torch.rand(2, 3, *size)
    hit = (torch.rand(2, 1, *size) > 0.6).float()
    hit[:, :, 0, 0] = 1
    filled = fill_holes(image, hit)
    kept = hit.expand_as(image) > 0
    assert torch.equal(filled[kept], image[kept])
    low = torch.where(kept, image, 2.0).amin((2, 3))
    high = torch.where(kept, image, -1.0).amax((2, 3))
    assert (filled >= low[..., None, None] - 1e-5).all()
    assert (filled <= high[..., None, None] + 1e-5).all()


def test_one_colour_fills_everything_and_nothing_fills_nothing():
    hit = torch.zeros(1, 1, 19, 30)
    assert fill_holes(torch.rand(1, 3, 19, 30), hit).eq(0).all()
    hit[0, 0, 3, 4] = 1
    assert torch.allclose(fill_holes(torch.full((1, 3, 19, 30), 0.7), hit), torch.tensor(0.7))


def test_planes_have_the_documented_ranges():
    image = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(3).view(1, 1, 2, 3)
    planes = condition_planes(image, torch.tensor([[[0.05, 2 * NEAREST_DEPTH]]]))
    assert planes.shape == (1, 5, 1, 2)
    assert planes[0, :, 0, 0].tolist() == [-1, -1, -1, 1, 1], 'nearer than the near plane counts as at it'
    assert planes[0, :, 0, 1].tolist() == pytest.approx([1, 1, 1, 1, 0.5])
    empty = condition_planes(image, torch.zeros(1, 1, 2))
    assert empty.eq(0).all()
    with pytest.raises(ValueError, match='uint8'):
        condition_planes(image.float(), torch.zeros(1, 1, 2))
