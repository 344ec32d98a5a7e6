"""The flow-matching sampler as plain functions (arXiv 2510.07313, video generation; Wan's conventions).

x_sigma = (1 - sigma) * sample + sigma * noise, velocity = noise - sample, the model's timestep is 1000 * sigma, and
sampling runs from sigma 1 down to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import UniPCMultistepScheduler

from wristworld_ros.errors import UserError

# (x at sigma, sigma a 0-dim tensor) -> velocity of x's shape.
Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# (velocity, noise at sigmas[0], sigmas) -> sample.
Solver = Callable[[Velocity, torch.Tensor, torch.Tensor], torch.Tensor]


def shifted_sigmas(steps: int, shift: float, device: torch.device | str = 'cpu') -> torch.Tensor:
    """The published schedule: s = linspace(1, 0, steps + 1) without its end, shifted to shift*s / (1 + (shift-1)*s).

    Args:
        steps: At least 1; 50 as published, 4, 2 or 1 for few-step models (one step is always sigma 1).
        shift: Above 0; 5 as published, 1 leaves the spacing even, more spends more steps near noise.
        device: Of the result.

    Returns:
        [steps] float32, falling, all in (0, 1]; the final 0 is not included.

    Raises:
        UserError: Other steps or shift.
    """
    if steps < 1 or shift <= 0:
        raise UserError(f'The sampler got steps={steps}, shift={shift}', 'give at least 1 step and a shift above 0')
    s = torch.linspace(1, 0, steps + 1, device=device)[:-1]
    return shift * s / (1 + (shift - 1) * s)


def euler_sample(velocity: Velocity, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Integrate from noise to a sample with Euler steps: x += v * (sigma_next - sigma), the last sigma_next is 0.

    Args:
        velocity: Of the flow.
        noise: [B, ...] at sigmas[0].
        sigmas: [steps] float32, falling.

    Returns:
        The sample, in the shape and dtype of `noise`.
    """
    x = noise
    ends = torch.cat([sigmas[1:], sigmas.new_zeros(1)])
    for sigma, sigma_next in zip(sigmas, ends, strict=True):
        x = (x.float() + velocity(x, sigma).float() * (sigma_next - sigma)).to(noise.dtype)
    return x


def unipc_sample(velocity: Velocity, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Integrate from noise to a sample with UniPC, a multistep predictor-corrector (Zhao et al. 2023, arXiv
    2302.04867).

    Order 2 in the half log signal-to-noise ratio, with one evaluation of the velocity per step as in Euler's method:
    velocities of earlier steps are reused, so fewer steps are needed. Computed by diffusers' `UniPCMultistepScheduler`.
    With one or two steps the result equals Euler's to 1e-6 of the velocity; the log ratio at sigma 1 is infinite, so
    the scheduler gets 1 - 1e-6 in its place.

    Arguments and result as in `euler_sample`.
    """
    scheduler = UniPCMultistepScheduler(prediction_type='flow_prediction', use_flow_sigmas=True, solver_order=2)
    scheduler.set_timesteps(len(sigmas))
    # Both solvers use the same schedule; not every version of the library accepts sigmas as an argument.
    scheduler.sigmas = torch.cat([sigmas.clamp(max=1 - 1e-6), sigmas.new_zeros(1)]).float().cpu()
    scheduler.set_begin_index(0)
    x = noise.float()
    for sigma, timestep in zip(sigmas, scheduler.timesteps, strict=True):
        v = velocity(x.to(noise.dtype), sigma).float()
        x = scheduler.step(v, timestep, x, return_dict=False)[0]
    return x.to(noise.dtype)


def renoise_sample(
    velocity: Velocity, noise: torch.Tensor, sigmas: torch.Tensor, fresh: torch.Tensor | None = None
) -> torch.Tensor:
    """Sample as few-step students are trained to (consistency models, Song et al. 2023, arXiv 2303.01469, algorithm 1):
    predict the clean sample, add new noise up to the next level, predict again.

    Args:
        velocity: Of the flow; the sample predicted at x is x - sigma * velocity.
        noise: [B, ...] at sigmas[0].
        sigmas: [steps] float32, falling.
        fresh: Unit Gaussian [steps - 1, B, ...], what is added before each step but the first; may be None for one step.

    Returns:
        The sample predicted last, in the shape and dtype of `noise`.

    Raises:
        ValueError: Another number of steps' noise.
    """
    given = 0 if fresh is None else len(fresh)
    if given != len(sigmas) - 1:
        raise ValueError(f'renoise_sample got new noise for {given} steps; give {len(sigmas) - 1} for {len(sigmas)}.')
    x = noise
    for step, sigma in enumerate(sigmas):
        sample = x.float() - sigma * velocity(x, sigma).float()
        if fresh is not None and step < given:
            x = ((1 - sigmas[step + 1]) * sample + sigmas[step + 1] * fresh[step].float()).to(noise.dtype)
    return sample.to(noise.dtype)


SOLVERS: dict[str, Solver] = {
    'euler': euler_sample,
    'unipc': unipc_sample,
}


def solver(name: str) -> Solver:
    """A solver by name.

    Raises:
        UserError: There is none of this name.
    """
    if name not in SOLVERS:
        raise UserError(f'The solver is {name!r}', f'it must be one of {", ".join(SOLVERS)}')
    return SOLVERS[name]


def chosen_levels(levels: Sequence[float], steps: int | None = None) -> torch.Tensor:
    """The noise levels that a run of `steps` visits, out of those that a student was trained at.

    Spread evenly over the list, from its first on: of four, two steps take the first and the third.

    Args:
        levels: Falling, in (0, 1]; the first is 1.
        steps: 1 to len(levels); None for all.

    Returns:
        [steps] float32.

    Raises:
        UserError: More steps than levels, or less than one.
    """
    steps = len(levels) if steps is None else steps
    if not 1 <= steps <= len(levels):
        raise UserError(
            f'The sampler got steps={steps}, and this model was distilled to {len(levels)} step(s)',
            f'give 1 to {len(levels)} steps',
        )
    return torch.tensor([levels[i * len(levels) // steps] for i in range(steps)], dtype=torch.float32)


def guide(positive: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance: negative + scale * (positive - negative). Scale 1 is no guidance, 5 as published."""
    return negative + scale * (positive - negative)


def both_halves(positive: torch.Tensor | None, negative: torch.Tensor | None = None) -> torch.Tensor | None:
    """An input of a guided step for both of its halves, as one batch.

    Args:
        positive: [B, ...], or None where the step has no such input.
        negative: [B, ...], None for the same as `positive`.

    Returns:
        [2 B, ...], or None.
    """
    return None if positive is None else torch.cat([positive, positive if negative is None else negative])


def add_noise(sample: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Noisy latents for training: (1 - sigma) * sample + sigma * noise.

    Args:
        sample: [B, C, T, h, w].
        noise: [B, C, T, h, w], unit Gaussian.
        sigma: [B] or [B, T], 0 to 1.

    Returns:
        [B, C, T, h, w].
    """
    sigma = per_frame(sigma, sample)
    return (1 - sigma) * sample + sigma * noise


def clean_guess(latents: torch.Tensor, sigma: torch.Tensor, spread: float = 0.5) -> torch.Tensor:
    """The best linear estimate of the clean sample: the input of a network that predicts samples, instead of raw noise.

    Wiener's factor (1 - s) d^2 / ((1 - s)^2 d^2 + s^2) for samples of mean 0 and standard deviation d: 1 at sigma 0,
    and 0 at sigma 1, where the input carries no information; a first step is then a plain regression.

    Args:
        latents: [B, C, T, h, w], noisy.
        sigma: [B] or [B, T], 0 to 1.
        spread: Standard deviation d of clean samples.

    Returns:
        [B, C, T, h, w].
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

    Args:
        shape: [B, C, T, h, w].
        share: 0 (independent frames) to 1 (one noise for all frames).
        base: The common part [B, C, 1, h, w], as an earlier call of the same stream returned it; None samples it.
        generator: Of random numbers; None for torch's own.
        device: Of the result.

    Returns:
        Noise of the given shape, and the base for the stream's next call.

    Raises:
        UserError: Another share.
    """
    if not 0 <= share <= 1:
        raise UserError(f'The shared noise got share={share}', 'give a share of the variance, 0 to 1')
    if base is None:
        base = torch.randn(shape[0], shape[1], 1, *shape[3:], generator=generator, device=device)
    own = torch.randn(shape, generator=generator, device=device)
    return share**0.5 * base + (1 - share) ** 0.5 * own, base
