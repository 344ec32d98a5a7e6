"""Stage 2: the wrist video transformer with its condition latents and anchor tokens (arXiv 2510.07313)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from wristworld_ros.errors import UserError
from wristworld_ros.models.state_dict import load_strict, named_tensors
from wristworld_ros.models.wan import sampling
from wristworld_ros.models.wan.anchor_encoder import AnchorEncoder
from wristworld_ros.models.wan.checkpoints import wan_name
from wristworld_ros.models.wan.config import GeneratorConfig
from wristworld_ros.models.wan.conv_decoder import ConvDecoder
from wristworld_ros.models.wan.transformer import AttentionPlan, WanTransformer

_TRANSFORMER = 'transformer.'
_RELEASED = 'denoising_model.'


class WristGenerator(nn.Module):
    """Wan's video transformer; condition latents are concatenated to the noisy ones, anchor tokens end the context.

    The same class at every size. With `decoder` in its configuration the transformer's output goes through a
    convolutional decoder that predicts the clean latents; callers may ask for velocities either way. Latents are [B, C,
    T, h, w], C = `settings.latent_channels`. A call keeps nothing in the model. Streaming and training passes are in
    `causal.py`.

    Args:
        settings: The generator's configuration.
    """

    def __init__(self, settings: GeneratorConfig):
        super().__init__()
        self.settings = s = settings
        self.transformer = WanTransformer(s)
        self.ext_proj = nn.Sequential(
            nn.Linear(s.clip_dim, s.clip_hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(s.clip_hidden, s.text_dim)
        )
        self.temporal_embed = nn.Embedding(s.max_frames, s.clip_dim)
        self.view_embed = nn.Embedding(s.max_views, s.clip_dim)
        for embedding in (self.temporal_embed, self.view_embed):
            nn.init.normal_(embedding.weight, std=0.02)
        self.decoder = (
            ConvDecoder(s.latent_channels, s.condition_channels, s.out_channels, **s.decoder) if s.decoder else None
        )
        self.anchor_encoder = AnchorEncoder(s.anchor_encoder) if s.anchor_encoder else None
        if s.text == 'learned':
            self.text_context = nn.Parameter(0.02 * torch.randn(s.context_length, s.text_dim))
        elif s.text == 'stored':
            self.register_buffer('text_context', torch.zeros(s.context_length, s.text_dim))
            self.register_buffer('negative_text_context', torch.zeros(s.context_length, s.text_dim))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> WristGenerator:
        """Build with random weights, in evaluation mode (`train()` switches dropout on).

        Args:
            config: The keys of `GeneratorConfig`; others are ignored.

        Raises:
            UserError: A setting is missing or contradicts others.
        """
        return cls(GeneratorConfig.from_config(config)).eval()

    # Weights

    def release_tensors(self) -> dict[str, torch.Tensor]:
        """The model's own tensors under the released checkpoint's names (`denoising_model.*` are Wan's names)."""

        def rename(name: str) -> str:
            if name.startswith(_TRANSFORMER):
                return _RELEASED + wan_name(name.removeprefix(_TRANSFORMER))
            return AnchorEncoder.portable_name(name)

        return named_tensors(self, rename)

    def load_release_state_dict(self, weights: Mapping[str, torch.Tensor], source: str = 'weights') -> None:
        """Load weights with the released checkpoint's names, strictly.

        Args:
            weights: Name -> tensor.
            source: What to call the weights in an error, e.g. the file.

        Raises:
            UserError: A key is missing, unknown or of another shape. Nothing is changed then.
        """
        load_strict(self.release_tensors(), weights, source)

    @staticmethod
    def param_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
        """The dtype that a parameter is stored in where the model runs in `dtype`.

        The transformer and the vision tower may be in low precision, except for what the library keeps in float32
        (norms, the time embedding, the tables of scales and shifts).

        Args:
            name: Of a parameter of this model.
            dtype: The precision to run in.

        Returns:
            `dtype` or torch.float32.
        """
        parts = name.removeprefix(_TRANSFORMER).split('.')
        low = name.startswith((_TRANSFORMER, 'anchor_encoder.'))
        return dtype if low and not set(parts) & set(WanTransformer._keep_in_fp32_modules) else torch.float32

    # Context

    def anchor_features(self, images: torch.Tensor) -> torch.Tensor:
        """Features of anchor frames by the model's own encoder.

        Args:
            images: [B, V, T, 3, H, W], 0 to 1.

        Returns:
            [B, V, T, clip_dim].

        Raises:
            ValueError: The model has no encoder; encode with `checkpoints.clip_from_release` then.
        """
        if self.anchor_encoder is None:
            raise ValueError("This generator has no anchor encoder of its own; encode with clip_from_release's model.")
        return self.anchor_encoder.features(images.flatten(0, 2)).unflatten(0, images.shape[:3])

    def anchor_tokens(self, features: torch.Tensor) -> torch.Tensor:
        """Anchor features to context tokens, view-major (all times of view 0 first).

        Args:
            features: [B, V, T, clip_dim].

        Returns:
            [B, V * T, text_dim].

        Raises:
            UserError: More views or frames than the embeddings have rows.
        """
        views, frames = features.shape[1:3]
        s = self.settings
        if views > s.max_views or frames > s.max_frames:
            raise UserError(
                f'The generator got {views} views of {frames} frames and has embeddings for {s.max_views} views of '
                f'{s.max_frames} frames',
                'give fewer',
            )
        features = features + self.temporal_embed.weight[:frames] + self.view_embed.weight[:views, None]
        return self.ext_proj(features).flatten(1, 2)

    def context(self, text_context: torch.Tensor | None, tokens: torch.Tensor | None) -> torch.Tensor:
        """Text first, anchor tokens at the end, always `context_length` tokens.

        Args:
            text_context: [B or 1, L, text_dim], cut or filled with zeros to length; None for the model's own text.
            tokens: [B, N, text_dim], or None (no anchor tokens: guidance, ablation).

        Returns:
            [B, context_length, text_dim].

        Raises:
            UserError: There are more tokens than `context_length`.
        """
        if text_context is None:
            text_context = self.own_text(negative=False)
        length = self.settings.context_length
        count = 0 if tokens is None else tokens.shape[1]
        if count > length:
            raise UserError(
                f'The context got {count} anchor tokens and has room for {length}', 'give fewer views or frames'
            )
        text = text_context[:, : length - count]
        missing = length - count - text.shape[1]
        if missing:
            text = torch.cat([text, text.new_zeros(text.shape[0], missing, text.shape[2])], dim=1)
        if tokens is None:
            return text
        return torch.cat([text.expand(tokens.shape[0], -1, -1).to(tokens.dtype), tokens], dim=1)

    def own_text(self, negative: bool = False) -> torch.Tensor:
        """The text embedding stored in the model.

        Args:
            negative: The one for guidance, where the model has one.

        Returns:
            [1, context_length, text_dim].

        Raises:
            ValueError: The model stores no text.
        """
        if self.settings.text == 'given':
            raise ValueError("This generator stores no text; give text_context, or build it with text='stored'.")
        if negative and self.settings.text == 'stored':
            return self.negative_text_context[None]
        return self.text_context[None]

    # Prediction

    def transform(
        self,
        latents: torch.Tensor,
        condition_latents: torch.Tensor | None,
        timestep: torch.Tensor,
        context: torch.Tensor,
        plan: AttentionPlan | None = None,
    ) -> torch.Tensor:
        """The transformer alone; arguments as in `predict`. Returns [B, out_channels, T, h, w]."""
        if condition_latents is None:
            shape = (latents.shape[0], self.settings.condition_channels, *latents.shape[2:])
            condition_latents = latents.new_zeros(shape)
        latents = self._network_input(latents, timestep)
        return self.transformer(torch.cat([latents, condition_latents], dim=1), timestep, context, plan)

    def predict(
        self,
        latents: torch.Tensor,
        condition_latents: torch.Tensor | None,
        timestep: torch.Tensor,
        context: torch.Tensor,
        plan: AttentionPlan | None = None,
    ) -> torch.Tensor:
        """What the network itself predicts: the velocity, or the clean sample when `prediction` is 'sample'.

        Args:
            latents: [B, C, T, h, w], noisy.
            condition_latents: [B, condition_channels, T, h, w], or None for zeros.
            timestep: [B], or [B, T] per frame; 0 to 1000.
            context: [B, S, text_dim].
            plan: How to attend; None for bidirectional.

        Returns:
            [B, C, T, h, w].
        """
        features = self.transform(latents, condition_latents, timestep, context, plan)
        return self.decode_features(features, latents, condition_latents, timestep)

    def decode_features(
        self,
        features: torch.Tensor,
        latents: torch.Tensor,
        condition_latents: torch.Tensor | None,
        timestep: torch.Tensor,
    ) -> torch.Tensor:
        """The transformer's output to the network's prediction: through the decoder where the model has one.

        Args:
            features: [B, out_channels, T, h, w] of `transform`.
            latents: As given to `transform`, and so are condition_latents and timestep.
            condition_latents: See `predict`.
            timestep: See `predict`.

        Returns:
            [B, C, T, h, w].
        """
        if self.decoder is None:
            return features
        return self.decoder(features, self._network_input(latents, timestep), condition_latents, timestep / 1000)

    def _network_input(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Noisy latents as the network gets them: as they are, or their clean guess where it predicts samples."""
        return latents if self.settings.prediction == 'velocity' else sampling.clean_guess(latents, timestep / 1000)

    def to_velocity(self, prediction: torch.Tensor, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The network's prediction as a velocity: itself, or (latents - sample) / sigma for sigma above 0."""
        if self.settings.prediction == 'velocity':
            return prediction
        return (latents - prediction) / sampling.per_frame(timestep / 1000, latents)

    def to_sample(self, prediction: torch.Tensor, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The network's prediction as a clean sample: itself, or latents - sigma * velocity."""
        if self.settings.prediction == 'sample':
            return prediction
        return latents - sampling.per_frame(timestep / 1000, latents) * prediction

    def velocity(
        self,
        latents: torch.Tensor,
        condition_latents: torch.Tensor | None,
        timestep: torch.Tensor,
        context: torch.Tensor,
        plan: AttentionPlan | None = None,
    ) -> torch.Tensor:
        """The flow's velocity, noise minus sample, whatever the network predicts. Arguments as in `predict`."""
        return self.to_velocity(self.predict(latents, condition_latents, timestep, context, plan), latents, timestep)

    def guided_velocity(
        self,
        condition_latents: torch.Tensor | None,
        context: torch.Tensor,
        negative_context: torch.Tensor | None = None,
        scale: float = 1.0,
        plan: AttentionPlan | None = None,
        batched: bool = True,
    ) -> sampling.Velocity:
        """The function (x, sigma) -> velocity that a solver integrates, with classifier-free guidance.

        Args:
            condition_latents: See `predict`.
            context: See `predict`.
            negative_context: [B or 1, S, text_dim], with the same condition latents; None samples without guidance.
            scale: Of guidance; 1 is none.
            plan: See `predict`.
            batched: Both halves of a guided step are one batch, so a plan's cache must hold 2 B streams. False computes
                them one after the other, in half the memory.

        Returns:
            A function of x [B, C, T, h, w] and sigma (0-dim tensor).

        Raises:
            ValueError: Guidance with a cache, and `batched` is False.
        """

        def unguided(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return self.velocity(x, condition_latents, (1000 * sigma).expand(x.shape[0]), context, plan)

        if negative_context is None or scale == 1.0:
            return unguided
        negative_context = negative_context.expand_as(context)
        if not batched:
            if plan is not None and plan.cache is not None:
                raise ValueError('A cache holds both halves of a guided step; sample with batched=True.')
            negative = self.guided_velocity(condition_latents, negative_context, plan=plan)
            return lambda x, sigma: sampling.guide(unguided(x, sigma), negative(x, sigma), scale)
        contexts, conditions = sampling.both_halves(context, negative_context), sampling.both_halves(condition_latents)

        def guided(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            latents = sampling.both_halves(x)
            both = self.velocity(latents, conditions, (1000 * sigma).expand(latents.shape[0]), contexts, plan)
            return sampling.guide(*both.chunk(2), scale)

        return guided

    # Sampling

    def sigmas(
        self, steps: int | None = None, shift: float | None = None, device: torch.device | str = 'cpu'
    ) -> torch.Tensor:
        """The noise levels of a sampling run, [steps] float32; None takes the configuration's setting.

        Those of a few-step student are what it was distilled to (`sampling.chosen_levels`), whatever the shift.
        """
        if student := self.settings.renoise:
            return sampling.chosen_levels(student.levels, steps).to(device)
        steps = self.settings.sampling_steps if steps is None else steps
        return sampling.shifted_sigmas(steps, self.settings.shift if shift is None else shift, device)

    def solver(self, name: str = 'euler', fresh: torch.Tensor | None = None) -> sampling.Solver:
        """What goes through the noise levels: (velocity, noise, sigmas) -> sample.

        Args:
            name: Of the solver that integrates the flow; a few-step student has none, and re-noises.
            fresh: New noise of a student's later steps, see `sampling.renoise_sample`.

        Raises:
            UserError: There is no such solver.
        """
        if self.settings.sampler is None:
            return sampling.solver(name)
        return functools.partial(sampling.renoise_sample, fresh=fresh)

    @torch.no_grad()
    def sample(
        self,
        noise: torch.Tensor,
        condition_latents: torch.Tensor | None,
        context: torch.Tensor,
        negative_context: torch.Tensor | None = None,
        steps: int | None = None,
        cfg_scale: float | None = None,
        shift: float | None = None,
        solver: str = 'euler',
        batched: bool = True,
        fresh: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Sample a whole clip, bidirectionally, as published. Longer videos: `windows.sample_windows`.

        Args:
            noise: [B, C, T, h, w], unit Gaussian.
            condition_latents: See `predict`.
            context: See `predict`.
            negative_context: For guidance, see `guided_velocity`; None samples without guidance in half the time.
            steps: None for the configuration's.
            cfg_scale: Scale of guidance, 1 for none; None for the configuration's.
            shift: None for the configuration's.
            solver: 'euler' as published, or 'unipc' for fewer steps.
            batched: False computes a guided step's halves one after the other.
            fresh: New noise of a few-step student's later steps, [steps - 1, B, C, T, h, w].

        Returns:
            Clean latents [B, C, T, h, w].
        """
        scale = self.settings.cfg_scale if cfg_scale is None else cfg_scale
        velocity = self.guided_velocity(condition_latents, context, negative_context, scale, batched=batched)
        return self.solver(solver, fresh)(velocity, noise, self.sigmas(steps, shift, noise.device))
