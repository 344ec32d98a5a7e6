"""What the plane sweep's network promises whatever its weights are."""

import pytest
import torch

from wristworld_ros.models.sweep import SweepConfig, SweepNetwork, SweepViews, sweep_views

SMALL = SweepConfig(heights=(-0.02, 0.0, 0.03, 0.06), features=8, matched=8, widths=(16, 16), anchor_width=32)


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return SweepNetwork(SMALL).eval()


def case(anchors=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    K = torch.tensor([[20.0, 0, 15.5], [0, 20.0, 15.5], [0, 0, 1]])
    T_wrist = torch.eye(4)
    T_wrist[:3, :3] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # looks down from 0.25 m
    T_wrist[2, 3] = 0.25
    relative = torch.eye(4).repeat(anchors, 1, 1)
    relative[:, :3, 3] = torch.rand(anchors, 3, generator=random) * 0.1
    relative[:, 2, 3] += 0.4
    views = [
        sweep_views(
            K[None], T_wrist[None], K.expand(1, anchors, 3, 3), relative[None], torch.tensor([[0.0, 0, 1, 0]]),
            torch.tensor(SMALL.heights), hw, (32, 32), (32, 32),
        )
        for hw in ((16, 16), (32, 32))
    ]  # fmt: skip
    return torch.rand(1, anchors, 3, 32, 32, generator=random), *views


def reordered(views, order):
    return SweepViews(views.depth, views.uv[:, order], views.valid[:, order])


@torch.no_grad()
def test_the_order_of_anchors_does_not_matter(network):
    images, half, full = case()
    order = [2, 0, 1]
    one = network(images, half, full)
    other = network(images[:, order], reordered(half, order), reordered(full, order))
    assert torch.allclose(one.image, other.image, atol=1e-5) and torch.allclose(one.depth, other.depth, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('anchors', [1, 2, 4])
def test_colours_are_mixtures_of_the_anchors_and_depths_lie_between_the_planes(network, anchors):
    images, half, full = case(anchors)
    out = network(images, half, full)
    seen = full.valid.any(1).any(1)
    assert out.image.shape == (1, 3, 32, 32) and bool((out.image >= 0).all()) and bool((out.image <= 1).all())
    assert bool((out.depth[seen] >= 0.25 - 0.06 - 1e-4).all()) and bool((out.depth[seen] <= 0.25 + 0.02 + 1e-4).all())
    assert bool((out.scale > 0).all())


@torch.no_grad()
def test_one_colour_everywhere_comes_out_as_that_colour(network):
    images, half, full = case()
    colour = torch.tensor([0.2, 0.5, 0.8])[:, None, None]
    out = network(torch.zeros_like(images) + colour, half, full)
    seen = full.valid.any(1).any(1)
    assert torch.allclose(out.image[:, :, seen[0]], colour[..., 0].expand(3, int(seen.sum()))[None], atol=1e-4)


@torch.no_grad()
def test_convolutions_in_bfloat16_show_nearly_the_same():
    torch.manual_seed(0)
    network = SweepNetwork(SMALL).eval()
    images, half, full = case()
    exact = network(images, half, full)
    network.convolve_in(torch.bfloat16)
    close = network(images, half, full)
    assert network.choose.weight.dtype == torch.float32 and close.image.dtype == torch.float32
    assert 0 < float((close.image - exact.image).abs().mean()) < 5e-3
    assert float((close.depth - exact.depth).abs().max()) < 5e-3
