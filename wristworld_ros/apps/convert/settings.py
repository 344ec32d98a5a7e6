"""The settings of a conversion."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.setting import setting


@dataclass(frozen=True)
class ConvertSettings:
    """What `convert_release` needs to know besides the folders of the files."""

    out: str = setting('converted', 'The model directory to write.')
    parts: str = setting('all', 'Convert both stages, or one of them alone.', choices=('all', 'stage1', 'stage2'))
    name: str | None = setting(None, 'Name of the model; auto uses that of the directory.', none='auto')
    force: bool = setting(False, 'Replace a model directory that exists already.')
    dtype: str = setting(
        'keep', 'Precision of the weights on disk; keep leaves each as it is.',
        choices=('keep', 'float16', 'bfloat16', 'float32'),
    )  # fmt: skip
    heads: list = setting(
        [], 'Heads of stage 1 to keep, of camera, wrist, depth, points, track; none named keeps all that the file has.'
    )
    wrist_width: int = setting(832, 'Width of the wrist image, pixels.', low=16, high=4096)
    wrist_height: int = setting(480, 'Height of the wrist image, pixels.', low=16, high=4096)
    anchor_width: int = setting(518, 'Width of anchor images in stage 1, pixels.', low=14, high=4096)
    prompt: str = setting('robotic manipulation scene', 'The constant prompt.')
    negative_prompt: str = setting(
        'low quality, distorted, ugly, bad anatomy', 'The prompt that guidance steers away from.'
    )
    sizes: str | None = setting(
        None, 'JSON file with sizes that shapes do not say; published uses the published ones; see docs/models.md.',
        none='published',
    )  # fmt: skip
    stage1: str | None = setting(None, "Stage 1's file; auto looks for its published name.", none='auto')
    video: str | None = setting(None, "The video transformer's file; auto looks for its published name.", none='auto')
    lora: str | None = setting(
        None, "The LoRA of a student's video transformer; auto looks for LongLive's beside its file.", none='auto'
    )
    vae: str | None = setting(None, "The video autoencoder's file; auto looks for its published name.", none='auto')
    clip: str | None = setting(None, "The vision tower's file; auto looks for its published name.", none='auto')
    text_encoder: str | None = setting(None, "The text encoder's file; auto looks for its published name.", none='auto')
    tokenizer: str | None = setting(
        None, "The folder of the text encoder's tokenizer; auto looks for its published name.", none='auto'
    )
