"""The losses of causal training: windowed flow matching, teacher forcing, and consistency on the student's own roll-outs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from wristworld_ros.models.wan import WristGenerator, block_causal_predict, commit_chunk, new_cache
from wristworld_ros.models.wan.sampling import add_noise, per_frame
from wristworld_ros.models.wan.transformer import AttentionPlan
from wristworld_ros.training.causal.clips import Encoder, LatentClip
from wristworld_ros.training.trainer import Step

_LEAST_SIGMA = 0.05  # velocities of a network that predicts samples are divided by sigma
_HUBER = 0.03  # where the loss turns from squares to distances, of latents whose spread is about 0.5


def random_levels(shape: tuple[int, ...], shift: float, last: float, device: torch.device | str) -> Tensor:
    """Noise levels for training: uniform, then shifted as the schedule of sampling is; a share is pure noise."""
    s = 0.02 + 0.98 * torch.rand(shape, device=device)
    s = shift * s / (1 + (shift - 1) * s)
    return torch.where(torch.rand(shape, device=device) < last, torch.ones_like(s), s)


def velocity_loss(gen: WristGenerator, prediction: Tensor, noisy: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """Mean squared error of the velocity, whatever the network predicts; sigma [B] or [B, T]."""
    error = gen.to_sample(prediction, noisy, 1000 * sigma) - clean
    return (error / per_frame(sigma, error).clamp(min=_LEAST_SIGMA)).square().mean()


class WindowedLoss:
    """Flow matching of whole clips, every frame attending to every other: what makes a windowed teacher.

    Args:
        encoder: Of batches.
        noise_share: Share of the noise's variance that all frames have in common.
        last: Share of clips that are trained at pure noise.
    """

    def __init__(self, encoder: Encoder, noise_share: float, last: float = 0.1):
        self.encoder, self.noise_share, self.last = encoder, noise_share, last

    def __call__(self, gen: WristGenerator, batch: dict, step: Step) -> dict[str, Tensor]:
        clip = self.encoder(gen.eval(), batch)
        sigma = random_levels((clip.batch,), gen.settings.shift, self.last, clip.clean.device)
        noisy = add_noise(clip.clean, clip.noise(self.noise_share)[0], sigma)
        predicted = gen.predict(noisy, clip.condition, 1000 * sigma, clip.whole_context(gen))
        return {'total': velocity_loss(gen, predicted, noisy, clip.clean, sigma)}


class ForcingLoss:
    """Teacher forcing: every chunk at a noise level of its own, attending to the clean chunks before it.

    The clean history carries a little noise, so that a copy of it is not the best guess.

    Args:
        encoder: Of batches.
        noise_share: As in `WindowedLoss`.
        last: Share of chunks at pure noise.
        history_noise: Most of the noise on the history; each clip has some level up to it.
    """

    def __init__(self, encoder: Encoder, noise_share: float, last: float = 0.25, history_noise: float = 0.2):
        self.encoder, self.noise_share, self.last, self.history_noise = encoder, noise_share, last, history_noise

    def __call__(self, gen: WristGenerator, batch: dict, step: Step) -> dict[str, Tensor]:
        clip = self.encoder(gen.eval(), batch)
        device = clip.clean.device
        sigma = random_levels((clip.batch, clip.chunks), gen.settings.shift, self.last, device)
        by_frame = sigma.repeat_interleave(clip.chunk, dim=1)
        noise, history_noise = clip.noise(self.noise_share, 2)
        noisy = add_noise(clip.clean, noise, by_frame)
        history = add_noise(clip.clean, history_noise, self.history_noise * torch.rand(clip.batch, device=device))
        predicted = block_causal_predict(
            gen, noisy, history, clip.condition, 1000 * sigma, clip.contexts(gen), clip.chunk
        )
        return {'total': velocity_loss(gen, predicted, noisy, clip.clean, by_frame)}


@dataclass(frozen=True)
class RollOut:
    """A clip as the student itself made it, chunk after chunk.

    noisy: what its last step saw of each chunk, at one level for all; made: what it predicted there, and attended to later. Both
    [B, C, T, h, w].
    """

    noisy: Tensor
    made: Tensor


@torch.no_grad()
def roll_out(gen: WristGenerator, clip: LatentClip, contexts: Tensor, noise: Tensor) -> RollOut:
    """Stream a clip with the student's first len(noise) levels, through the ring of keys and values, as live.

    Args:
        gen: The student.
        clip: Whose condition it gets.
        contexts: [B, G, S, text_dim].
        noise: [steps, B, C, T, h, w], what is added before each step.
    """
    levels = gen.sigmas()[: len(noise)].to(noise.device)
    device = clip.clean.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    cache = new_cache(gen, (clip.clean.shape[3], clip.clean.shape[4]), clip.batch, clip.chunk, dtype=dtype)
    noisy, made = [], []
    for index in range(clip.chunks):
        span = slice(index * clip.chunk, (index + 1) * clip.chunk)
        condition, context = None if clip.condition is None else clip.condition[:, :, span], contexts[:, index]
        velocity = gen.guided_velocity(condition, context, plan=AttentionPlan(cache=cache))
        x, sample = noise[0, :, :, span], noise.new_zeros(())
        for step, level in enumerate(levels):
            if step:
                x = (1 - level) * sample + level * noise[step, :, :, span]
            sample = x - level * velocity(x, level).float()
        commit_chunk(gen, sample, condition, context, cache)
        noisy.append(x)
        made.append(sample)
    return RollOut(torch.cat(noisy, dim=2), torch.cat(made, dim=2))


class ConsistencyLoss:
    """Few-step distillation on the student's own roll-outs.

    The student streams a clip as it will live (Self-Forcing, Huang et al. 2025, arXiv 2506.08009): what it attends to is what it made,
    so that it learns to cope with its own errors. At the level where a roll-out ends, the frozen windowed teacher, which sees the
    whole clip and no history, follows its flow from the student's own noisy clip to the student's next level; what the student
    predicts there is what it must predict here (multistep consistency models, Heek et al. 2024, arXiv 2403.06807). At the last level
    the teacher goes all the way. Gradients flow through the last step alone.

    Distribution matching (DMD), which Self-Forcing prefers, needs a second network that follows the student's distribution, trained
    several times for each of the student's steps, and its gradient is the difference of two scores: with a few clips and minutes
    that network lags, and the difference is noise. A consistency loss is a regression on a target of bounded size with one
    frozen teacher; it costs some sharpness, which a condition map that shows most of the image makes up for.

    Args:
        encoder: Of batches.
        teacher: The windowed teacher, frozen.
        noise_share: As in `WindowedLoss`.
        substeps: Euler steps of the teacher between two levels.
        guidance: The teacher's; its result is distilled into the student, which then needs none.
    """

    def __init__(
        self,
        encoder: Encoder,
        teacher: WristGenerator,
        noise_share: float,
        substeps: int = 4,
        guidance: float = 1.0,
    ):
        self.encoder, self.noise_share, self.substeps, self.guidance = encoder, noise_share, substeps, guidance
        self.teacher = teacher.eval().requires_grad_(False)

    def __call__(self, gen: WristGenerator, batch: dict, step: Step) -> dict[str, Tensor]:
        clip = self.encoder(gen.eval(), batch)
        levels = gen.sigmas().to(clip.clean.device)
        last = step.number % len(levels)  # the same in all processes, which so take steps of one length together
        contexts = clip.contexts(gen)
        rolled = roll_out(gen, clip, contexts.detach(), clip.noise(self.noise_share, last + 1))
        level, below = levels[last], levels[last + 1] if last + 1 < len(levels) else levels.new_zeros(())
        target = self.target(gen, clip, contexts.detach(), rolled, level, below)
        found = self._predict(gen, clip, contexts, rolled.noisy, rolled.made, level)
        error = (found - target).square()
        loss = ((error + _HUBER**2).sqrt() - _HUBER).mean()
        return {
            'total': loss,
            f'step_{last + 1}': loss.detach(),
            'truth_mse': (found.detach() - clip.clean).square().mean(),
        }

    @torch.no_grad()
    def target(
        self, gen: WristGenerator, clip: LatentClip, contexts: Tensor, rolled: RollOut, level: Tensor, below: Tensor
    ) -> Tensor:
        """What the student must predict at `level`: what it predicts at `below`, on the teacher's flow; [B, C, T, h, w]."""
        teacher, negative = self.teacher, None
        if self.guidance != 1.0:
            negative = teacher.context(teacher.own_text(negative=True), None)
        context = clip.whole_context(teacher)
        velocity = teacher.guided_velocity(clip.condition, context, negative, self.guidance)
        x, stops = rolled.noisy, torch.linspace(0, 1, self.substeps + 1, device=level.device)
        for start, end in itertools.pairwise(level + (below - level) * stops):
            x = x + (end - start) * velocity(x, start).float()
        return self._predict(gen, clip, contexts, x, rolled.made, below) if below > 0 else x

    @staticmethod
    def _predict(
        gen: WristGenerator, clip: LatentClip, contexts: Tensor, noisy: Tensor, history: Tensor, level: Tensor
    ) -> Tensor:
        timestep = (1000 * level).expand(clip.batch)
        predicted = block_causal_predict(gen, noisy, history, clip.condition, timestep, contexts, clip.chunk)
        return gen.to_sample(predicted.float(), noisy, timestep)
