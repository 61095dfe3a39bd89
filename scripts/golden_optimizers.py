"""Prints steps of PyTorch's and timm's optimizers for the test in optimizer/rule.rs.

    python scripts/golden_optimizers.py
"""

import torch
from timm.optim import RMSpropTF

RULES = [
    lambda p: torch.optim.SGD([p], lr=1, weight_decay=0.01),
    lambda p: torch.optim.SGD([p], lr=1, momentum=0.9, weight_decay=0.01),
    lambda p: torch.optim.SGD([p], lr=1, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda p: RMSpropTF([p], lr=1, alpha=0.9, momentum=0.9, eps=1e-3, weight_decay=0.01),
    lambda p: torch.optim.AdamW([p], lr=1, weight_decay=0.01),
]
STEPS = [([0.1, 0.2, -0.3], 0.1), ([-0.2, 0.1, 0.4], 0.05), ([0.05, 0.0, -0.1], 0.02)]

for rule in RULES:
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer = rule(p)
    for gradient, rate in STEPS:
        optimizer.param_groups[0]["lr"] = rate
        p.grad = torch.tensor(gradient)
        optimizer.step()
    print([round(v, 7) for v in p.tolist()])
