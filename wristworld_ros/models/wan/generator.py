"""Stage 2: the wrist video transformer with its condition latents and anchor tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import nn

from wristworld_ros.models.state_dict import load_strict, named_tensors, wan_name
from wristworld_ros.models.wan import sampling
from wristworld_ros.models.wan.anchor_encoder import AnchorEncoder
from wristworld_ros.models.wan.attention import AttentionPlan, attention_plan, install_attention
from wristworld_ros.models.wan.config import GeneratorSettings
from wristworld_ros.models.wan.conv_decoder import ConvDecoder

_TRANSFORMER = 'transformer.'
_RELEASED = 'denoising_model.'


class WristGenerator(nn.Module):
    """Wan's video transformer; condition latents are concatenated to the noisy ones, anchor tokens end the context.

    The same class at every size. With ``decoder`` in its configuration the transformer's output goes through a
    convolutional decoder that predicts the clean latents; everything outside sees velocities either way.
    Latents are [B, C, T, h, w], C = ``settings.latent_channels``. Streaming and training passes: ``causal.py``.
    """

    def __init__(self, settings: GeneratorSettings):
        super().__init__()
        self.settings = s = settings
        self.transformer = WanTransformer3DModel(
            patch_size=s.patch_size,
            num_attention_heads=s.num_heads,
            attention_head_dim=s.dim // s.num_heads,
            in_channels=s.in_channels,
            out_channels=s.out_channels,
            text_dim=s.text_dim,
            freq_dim=s.freq_dim,
            ffn_dim=s.ffn_dim,
            num_layers=s.num_layers,
            eps=s.eps,
        )
        install_attention(self.transformer)
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
        """Build with random weights, in evaluation mode (call ``train()`` to train: it switches dropout on).

        config: see ``GeneratorSettings``. Raises ValueError, one sentence, on a missing or impossible setting.
        """
        return cls(GeneratorSettings.from_config(config)).eval()

    # Weights

    def release_tensors(self) -> dict[str, torch.Tensor]:
        """The model's own tensors under the released checkpoint's names (``denoising_model.*`` are Wan's names)."""

        def rename(name: str) -> str:
            if name.startswith(_TRANSFORMER):
                return _RELEASED + wan_name(name.removeprefix(_TRANSFORMER))
            return AnchorEncoder.portable_name(name)

        return named_tensors(self, rename)

    def load_release_state_dict(self, weights: Mapping[str, torch.Tensor], source: str = 'weights') -> None:
        """Load weights with the released checkpoint's names, strictly.

        weights: name -> tensor. source: what to call them in an error, for one the file.
        Raises ValueError, one sentence: key, shape found, shape wanted, what to do. Nothing is changed then.
        """
        load_strict(self.release_tensors(), weights, source)

    @staticmethod
    def allows_low_precision(name: str) -> bool:
        """Whether a parameter may be held in bfloat16: the transformer's and the vision tower's, but for what the library
        keeps in float32 (norms, the time embedding, the tables of scales and shifts)."""
        kept = WanTransformer3DModel._keep_in_fp32_modules
        return name.startswith((_TRANSFORMER, 'anchor_encoder.')) and not any(
            part in kept for part in name.removeprefix(_TRANSFORMER).split('.')
        )

    # Context

    def anchor_features(self, images: torch.Tensor) -> torch.Tensor:
        """Features of anchor frames by the model's own encoder.

        images: [B, V, T, 3, H, W], 0 to 1. Returns [B, V, T, clip_dim]. Raises ValueError where the model has none:
        then encode with ``release.clip_from_release``.
        """
        if self.anchor_encoder is None:
            raise ValueError("This generator has no anchor encoder of its own; encode with clip_from_release's model.")
        return self.anchor_encoder.features(images.flatten(0, 2)).unflatten(0, images.shape[:3])

    def anchor_tokens(self, features: torch.Tensor) -> torch.Tensor:
        """Anchor features -> context tokens, view-major (all times of view 0 first).

        features: [B, V, T, clip_dim]. Returns [B, V*T, text_dim]. Raises ValueError for more views or frames than the
        embeddings have rows.
        """
        views, frames = features.shape[1:3]
        if views > self.settings.max_views or frames > self.settings.max_frames:
            raise ValueError(
                f'anchor_tokens got {views} views of {frames} frames; this model has embeddings for '
                f'{self.settings.max_views} views of {self.settings.max_frames} frames.'
            )
        features = features + self.temporal_embed.weight[:frames] + self.view_embed.weight[:views, None]
        return self.ext_proj(features).flatten(1, 2)

    def context(self, text_context: torch.Tensor | None, tokens: torch.Tensor | None) -> torch.Tensor:
        """Text first, anchor tokens at the end, always ``context_length`` tokens.

        text_context: [B or 1, L, text_dim], cut (or filled with zeros) to make room, or None for the model's own text.
        tokens: [B, N, text_dim] or None (no anchor tokens: guidance, ablation).
        Returns [B, context_length, text_dim]. Raises ValueError when the tokens do not fit.
        """
        if text_context is None:
            text_context = self.own_text(negative=False)
        length = self.settings.context_length
        count = 0 if tokens is None else tokens.shape[1]
        if count > length:
            raise ValueError(f'context got {count} anchor tokens; at most {length} fit: give fewer views or frames.')
        text = text_context[:, : length - count]
        missing = length - count - text.shape[1]
        if missing:
            text = torch.cat([text, text.new_zeros(text.shape[0], missing, text.shape[2])], dim=1)
        if tokens is None:
            return text
        return torch.cat([text.expand(tokens.shape[0], -1, -1).to(tokens.dtype), tokens], dim=1)

    def own_text(self, negative: bool = False) -> torch.Tensor:
        """The text embedding stored in the model, [1, context_length, text_dim]; ``negative`` for guidance."""
        if self.settings.text == 'given':
            raise ValueError("This generator stores no text; give text_context, or build it with text='stored'.")
        if negative and self.settings.text == 'stored':
            return self.negative_text_context[None]
        return self.text_context[None]

    # Prediction

    def transform(self, latents, condition_latents, timestep, context, plan=None) -> torch.Tensor:
        """The transformer alone; arguments as in ``predict``. Returns [B, out_channels, T, h, w]."""
        if condition_latents is None:
            shape = (latents.shape[0], self.settings.condition_channels, *latents.shape[2:])
            condition_latents = latents.new_zeros(shape)
        latents = self._shown(latents, timestep)
        if timestep.ndim == 2:
            t, h, w = self.settings.patch_size
            tokens = latents.shape[3] // h * (latents.shape[4] // w)
            timestep = timestep[:, ::t].repeat_interleave(tokens, dim=1)
        dtype = self.transformer.patch_embedding.weight.dtype
        with attention_plan(self.transformer, plan):
            features = self.transformer(
                torch.cat([latents, condition_latents], dim=1).to(dtype),
                timestep.float(),
                context.to(dtype),
                return_dict=False,
            )[0]
        return features.to(latents.dtype)

    def predict(
        self,
        latents: torch.Tensor,
        condition_latents: torch.Tensor | None,
        timestep: torch.Tensor,
        context: torch.Tensor,
        plan: AttentionPlan | None = None,
    ) -> torch.Tensor:
        """What the network itself predicts: the velocity, or the clean sample when ``prediction`` is ``sample``.

        latents: [B, C, T, h, w], noisy. condition_latents: [B, condition_channels, T, h, w], or None for zeros.
        timestep: [B], or [B, T] a frame, 0 to 1000. context: [B, S, text_dim]. plan: how to attend, None for
        bidirectional. Returns latents' shape.
        """
        features = self.transform(latents, condition_latents, timestep, context, plan)
        return self.decode_features(features, latents, condition_latents, timestep)

    def decode_features(self, features, latents, condition_latents, timestep) -> torch.Tensor:
        """The transformer's output -> the network's prediction: through the decoder where the model has one."""
        if self.decoder is None:
            return features
        return self.decoder(features, self._shown(latents, timestep), condition_latents, timestep / 1000)

    def _shown(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Noisy latents as the network sees them: as they are, or their clean guess where it predicts samples."""
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
        """The flow's velocity, noise minus sample, whatever the network predicts. Arguments as in ``predict``."""
        return self.to_velocity(self.predict(latents, condition_latents, timestep, context, plan), latents, timestep)

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
    ) -> torch.Tensor:
        """Sample a whole clip, bidirectionally, as published. Longer videos: ``windows.sample_windows``.

        noise: [B, C, T, h, w], unit Gaussian. condition_latents, context: as in ``predict``. negative_context: for
        guidance, with the same condition latents; None, or cfg_scale 1, samples without guidance in half the time.
        steps, cfg_scale, shift: None for the configuration's. solver: ``euler`` as published, or ``unipc`` for fewer
        steps. batched: False does a guided step's halves one after the other. Returns clean latents, noise's shape.
        """
        integrate = sampling.solver(solver)
        scale = self.settings.cfg_scale if cfg_scale is None else cfg_scale
        velocity = self.guided_velocity(condition_latents, context, negative_context, scale, batched=batched)
        return integrate(velocity, noise, self.sigmas(steps, shift, noise.device))

    def sigmas(self, steps: int | None = None, shift: float | None = None, device='cpu') -> torch.Tensor:
        """The noise levels of a sampling run, [steps] float32; None takes the configuration's setting."""
        steps = self.settings.sampling_steps if steps is None else steps
        return sampling.shifted_sigmas(steps, self.settings.shift if shift is None else shift, device)

    def guided_velocity(
        self, condition_latents, context, negative_context=None, scale=1.0, plan=None, batched: bool = True
    ):
        """A function (latents, sigma) -> velocity with guidance, for ``sampling.euler_sample`` and its like.

        Both halves of a guided step go through the network as one batch, so a plan's cache must hold 2 B streams.
        batched: False sends them one after the other, in half the memory; a plan with a cache raises ValueError then.
        """
        guided = negative_context is not None and scale != 1.0
        if guided and not batched:
            if plan is not None and plan.cache is not None:
                raise ValueError('A cache holds both halves of a guided step; sample with batched=True.')
            positive = self.guided_velocity(condition_latents, context, plan=plan)
            negative = self.guided_velocity(condition_latents, negative_context.expand_as(context), plan=plan)
            return lambda x, sigma: sampling.guide(positive(x, sigma), negative(x, sigma), scale)
        if guided:
            context = torch.cat([context, negative_context.expand_as(context)])
            condition_latents = None if condition_latents is None else condition_latents.repeat(2, 1, 1, 1, 1)

        def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            latents = x.repeat(2, 1, 1, 1, 1) if guided else x
            timestep = (1000 * sigma).expand(latents.shape[0])
            v = self.velocity(latents, condition_latents, timestep, context, plan)
            return sampling.guide(*v.chunk(2), scale) if guided else v

        return velocity
