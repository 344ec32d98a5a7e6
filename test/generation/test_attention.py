"""The replaced rotary embedding and processors compute what the library's own do."""

import torch
from diffusers import WanTransformer3DModel

from wristworld_ros.generation.attention import install_attention


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
def test_contexts_of_runs_equal_each_run_alone():
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=(1, 1, 1), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=8, freq_dim=16, ffn_dim=32, num_layers=1,
    )  # fmt: skip
    install_attention(model)
    attention = model.blocks[0].attn2
    tokens, contexts = torch.randn(2, 12, 24), torch.randn(2, 3, 5, 24)
    together = attention(tokens, contexts)
    for run in range(3):
        alone = attention(tokens[:, 4 * run : 4 * run + 4], contexts[:, run])
        assert torch.allclose(together[:, 4 * run : 4 * run + 4], alone, atol=1e-6)
