"""The replaced rotary embedding and processors compute what the library's own do."""

import torch
from diffusers import WanTransformer3DModel

from wristworld_ros.models.wan.attention import AttentionPlan, attention_plan, install_attention


@torch.no_grad()
def test_plain_pass_equals_the_unmodified_transformer():
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=20, in_channels=4, out_channels=4,
        text_dim=8, freq_dim=16, ffn_dim=32, num_layers=2,
    )  # fmt: skip
    inputs = torch.randn(2, 4, 3, 6, 8), torch.tensor([300.0, 900.0]), torch.randn(2, 5, 8)
    wanted = model(*inputs).sample
    install_attention(model)
    assert torch.allclose(model(*inputs).sample, wanted, atol=1e-5)


@torch.no_grad()
def test_runs_along_the_batch_are_one_sequence():
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=(1, 1, 1), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=8, freq_dim=16, ffn_dim=32, num_layers=2,
    )  # fmt: skip
    install_attention(model)
    latents, timestep, context = torch.randn(2, 4, 6, 2, 3), torch.tensor([300.0, 900.0]), torch.randn(2, 5, 8)
    wanted = model(latents, timestep, context).sample
    runs = latents.unflatten(2, (3, 2)).transpose(1, 2).flatten(0, 1)
    with attention_plan(model, AttentionPlan(runs=3)):
        found = model(runs, timestep.repeat_interleave(3), context.repeat_interleave(3, 0)).sample
    assert torch.allclose(found.unflatten(0, (2, 3)).transpose(1, 2).flatten(2, 3), wanted, atol=1e-5)
