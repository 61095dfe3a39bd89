#!/usr/bin/env python3
"""Writes golden_fake_quantization.json: values and gradients of PyTorch's fake quantization.

    python scripts/golden_fake_quantization.py

Requires torch.
"""
import json
from pathlib import Path

import torch

OUT = Path(__file__).resolve().parent.parent / "crates/nets/tests/fixtures/golden_fake_quantization.json"


def case(x, quantize, **extra):
    x = x.clone().requires_grad_()
    factors = torch.arange(1, x.numel() + 1, dtype=torch.float32).reshape(x.shape)
    y = quantize(x)
    (y * factors).sum().backward()
    lists = {"x": x, "y": y, "factors": factors, "gradient": x.grad}
    return extra | {name: tensor.detach().flatten().tolist() for name, tensor in lists.items()}


def activation(x, low, high):
    """Quantized to the smallest range with `low`, `high` and 0."""
    scale = torch.tensor((high - low) / 255)
    zero_point = int(torch.round(-low / scale))
    quantize = lambda x: torch.fake_quantize_per_tensor_affine(x, scale.item(), zero_point, 0, 255)
    return case(x, quantize, scale=[scale.item()], zero_point=zero_point)


def weight(w):
    """Quantized per output channel to -127..127."""
    scales = w.abs().amax(1) / 127
    zeros = torch.zeros(len(w), dtype=torch.int32)
    return case(w, lambda w: torch.fake_quantize_per_channel_affine(w, scales, zeros, 0, -127, 127))


def main():
    torch.manual_seed(0)
    x = (2 * torch.randn(24)).round(decimals=4)
    activations = [activation(x, *limits) for limits in [(-1.0, 2.0), (0.0, 6.0), (-3.0, 0.0), (-6.0, 6.0)]]
    golden = {"activations": activations, "weight": weight(torch.randn(3, 8).round(decimals=4))}
    OUT.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
