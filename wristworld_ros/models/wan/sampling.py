"""The flow-matching sampler as plain functions.

Convention of Wan (and of the paper): x_sigma = (1 - sigma) * sample + sigma * noise, velocity = noise - sample, the
model's timestep is 1000 * sigma, and sampling goes from sigma 1 down to 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import UniPCMultistepScheduler


def shifted_sigmas(steps: int, shift: float, device: torch.device | str = 'cpu') -> torch.Tensor:
    """The published schedule: s = linspace(1, 0, steps + 1) without its end, shifted to shift*s / (1 + (shift-1)*s).

    steps: at least 1; 50 as published, 4, 2 or 1 for few-step models (one step is always sigma 1). shift: above 0; 5
    as published, 1 leaves the spacing even, more spends more steps near noise.
    Returns [steps] float32, falling, all in (0, 1]; the end, 0, is not in it. Raises ValueError on other arguments.
    """
    if steps < 1 or shift <= 0:
        raise ValueError(f'shifted_sigmas got steps={steps}, shift={shift}; steps must be at least 1, shift above 0.')
    s = torch.linspace(1, 0, steps + 1, device=device)[:-1]
    return shift * s / (1 + (shift - 1) * s)


def euler_sample(
    velocity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], noise: torch.Tensor, sigmas: torch.Tensor
) -> torch.Tensor:
    """Integrate from noise to a sample with Euler steps: x += v * (sigma_next - sigma), the last sigma_next is 0.

    velocity: (x of noise's shape, sigma a 0-dim tensor) -> velocity of the same shape. noise: [B, ...] at sigmas[0].
    sigmas: [steps] float32, falling. Returns the sample, noise's shape and dtype.
    """
    x = noise
    ends = torch.cat([sigmas[1:], sigmas.new_zeros(1)])
    for sigma, sigma_next in zip(sigmas, ends, strict=True):
        x = (x.float() + velocity(x, sigma).float() * (sigma_next - sigma)).to(noise.dtype)
    return x


def unipc_sample(
    velocity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], noise: torch.Tensor, sigmas: torch.Tensor
) -> torch.Tensor:
    """Integrate from noise to a sample with UniPC, a multistep predictor-corrector (Zhao et al. 2023, arXiv 2302.04867).

    Order 2 in the half log signal-to-noise ratio, one evaluation of the velocity a step as with Euler: earlier steps'
    velocities are remembered, so a few steps do what Euler needs many for. By diffusers' ``UniPCMultistepScheduler``.
    Arguments and result as in ``euler_sample``. At one or two steps the two are equal to 1e-6 of the velocity, for the
    log ratio at sigma 1 is infinite and the scheduler is given 1 - 1e-6 in its place.
    """
    scheduler = UniPCMultistepScheduler(prediction_type='flow_prediction', use_flow_sigmas=True, solver_order=2)
    scheduler.set_timesteps(len(sigmas))
    # Our own levels, so that both solvers run on one schedule; not every version of the library takes them as arguments.
    scheduler.sigmas = torch.cat([sigmas.clamp(max=1 - 1e-6), sigmas.new_zeros(1)]).float().cpu()
    scheduler.set_begin_index(0)
    x = noise.float()
    for sigma, timestep in zip(sigmas, scheduler.timesteps, strict=True):
        v = velocity(x.to(noise.dtype), sigma).float()
        x = scheduler.step(v, timestep, x, return_dict=False)[0]
    return x.to(noise.dtype)


SOLVERS = {'euler': euler_sample, 'unipc': unipc_sample}


def solver(name: str) -> Callable[..., torch.Tensor]:
    """A sampler by name: (velocity, noise, sigmas) -> sample. Raises ValueError, one sentence, on another name."""
    if name not in SOLVERS:
        raise ValueError(f'The solver is {name!r}; it must be one of {", ".join(SOLVERS)}.')
    return SOLVERS[name]


def guide(positive: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance: negative + scale * (positive - negative). Scale 1 is no guidance, 5 as published."""
    return negative + scale * (positive - negative)


def add_noise(sample: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Noisy latents for training: (1 - sigma) * sample + sigma * noise.

    sample, noise: [B, C, T, h, w]. sigma: [B] or [B, T], 0 to 1. Returns sample's shape.
    """
    sigma = per_frame(sigma, sample)
    return (1 - sigma) * sample + sigma * noise


def clean_guess(latents: torch.Tensor, sigma: torch.Tensor, spread: float = 0.5) -> torch.Tensor:
    """The best linear guess at the clean sample: what a network that predicts samples is shown instead of raw noise.

    Wiener's factor (1 - s) d^2 / ((1 - s)^2 d^2 + s^2) for samples of mean 0 and standard deviation d = ``spread``: 1 at
    sigma 0, and 0 at sigma 1, where the noise says nothing; a first step is then a plain regression.
    latents: [B, C, T, h, w]. sigma: [B] or [B, T], 0 to 1. Returns latents' shape.
    """
    kept = 1 - sigma
    return per_frame(kept * spread**2 / (kept.square() * spread**2 + sigma.square()), latents) * latents


def per_frame(values: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """[B] or [B, T] values shaped to broadcast over latents [B, C, T, h, w]."""
    return values.reshape(values.shape[0], 1, -1, 1, 1).to(latents)


def shared_noise(
    shape: tuple[int, ...],
    share: float,
    base: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = 'cpu',
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit Gaussian noise of which a share of the variance is the same in all frames, which steadies a video.

    shape: [B, C, T, h, w]. share: 0 (independent frames) to 1 (one noise for all frames). base: the part in common
    [B, C, 1, h, w], as an earlier call of the same stream returned it, or None to draw it.
    Returns (noise of the given shape, base): hand base to the stream's next call. Raises ValueError on other shares.
    """
    if not 0 <= share <= 1:
        raise ValueError(f'shared_noise got share={share}; give a share of the variance, 0 to 1.')
    if base is None:
        base = torch.randn(shape[0], shape[1], 1, *shape[3:], generator=generator, device=device)
    own = torch.randn(shape, generator=generator, device=device)
    return share**0.5 * base + (1 - share) ** 0.5 * own, base
