#!/usr/bin/env python3
"""Writes crates/interop/tests/fixtures/import: networks and files of other libraries.

    python scripts/golden_import.py

The .json files contain a network's keys, shapes and float64 logits. Weights, running statistics and
images are not stored: they follow from golden_nets.py's formula of (key, flat index). The .pth files
are small dictionaries in the forms that PyTorch writes. Requires the packages of peers.py.
"""
import argparse
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from golden_nets import USUAL, fill, uniform
from peers import (
    flat_peer,
    hf_efficientnet_peer,
    hf_mobilenet_peer,
    lite_peer,
    logits,
    lukemelas_peer,
    timm_peer,
    torchvision_peer,
)
from torchvision.models import MobileNet_V2_Weights

FIXTURES = Path(__file__).resolve().parent.parent / "crates" / "interop" / "tests" / "fixtures" / "import"
CLASSES = 10
IMAGES = (2, 3, 64, 64)
# Fixture: network, file name, mbconv's name of the architecture.
NETWORKS = {
    "torchvision_mobilenet_v2": (
        torchvision_peer("mobilenet_v2", MobileNet_V2_Weights.IMAGENET1K_V2, "", width_mult=0.25),
        "model",
        "mobilenet_v2_0.25",
    ),
    "timm_mobilenet_v2": (timm_peer("mobilenetv2_035"), "model", "mobilenet_v2_0.35"),
    "timm_efficientnet": (timm_peer("efficientnet_b0"), "efficientnet_b0_ra-3dd342df", "efficientnet_b0"),
    "timm_tf_efficientnet": (timm_peer("tf_efficientnet_b0"), "tf_efficientnet_b0_aa-827b6e33", "tf_efficientnet_b0"),
    "timm_tf_lite": (timm_peer("tf_efficientnet_lite0"), "tf_efficientnet_lite0-0aa007d2", "tf_efficientnet_lite0"),
    "timm_edgetpu": (timm_peer("efficientnet_es"), "efficientnet_es_ra-f111e99c", "efficientnet_es"),
    "timm_tf_edgetpu": (timm_peer("tf_efficientnet_es"), "tf_efficientnet_es-ca1afbfe", "tf_efficientnet_es"),
    "lukemelas_efficientnet": (lukemelas_peer(0), "efficientnet-b0-355c32eb", "tf_efficientnet_b0"),
    "lukemelas_lite": (lite_peer(0, image_size=IMAGES[-1]), "efficientnet-lite0-57934424", "tf_efficientnet_lite0"),
    "hugging_face_mobilenet_v2": (hf_mobilenet_peer(0.35), "model", "tf_mobilenet_v2_0.35"),
    "hugging_face_efficientnet": (hf_efficientnet_peer(0), "model", "tf_efficientnet_b0"),
    "flat_mobilenet_v2": (flat_peer(0.25), "mobilenetv2_0.25-b61d2159", "mobilenet_v2_0.25"),
    "flat_mobilenet_v2_0.1": (flat_peer(0.1), "mobilenetv2_0.1-7d1d638a", "mobilenet_v2_0.1_round4"),
    "timm_edgetpu_medium": (timm_peer("efficientnet_em"), "efficientnet_em_ra2-66250f76", "efficientnet_em"),
}


def network(peer):
    """Writes a network's keys and shapes, and its logits in float64."""
    model = peer.build(CLASSES)
    state = model.state_dict()
    for key, tensor in state.items():
        layer, kind = key.rsplit(".", 1)
        if kind != "num_batches_tracked":
            state[key] = fill(key, tuple(tensor.shape), USUAL if f"{layer}.running_var" in state else None)
    model.load_state_dict(state)
    images = torch.from_numpy(uniform("images", int(np.prod(IMAGES))).reshape(IMAGES).astype(np.float32)).double()
    with torch.no_grad():
        return {key: list(value.shape) for key, value in state.items()}, logits(model.double().eval(), images).tolist()


def files():
    """Writes the same tensors in every file form of PyTorch."""
    numbers = torch.arange(24, dtype=torch.float32) / 4
    state = OrderedDict(
        whole=numbers.reshape(2, 3, 4),
        transposed=numbers.reshape(4, 6).T,
        part=numbers[8:16].reshape(2, 4),
        half=numbers.half(),
        brain=numbers.bfloat16(),
        double=numbers.double(),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        count=torch.tensor(7),
        parameter=torch.nn.Parameter(numbers),
    )
    prefixed = {f"module.{key}": value for key, value in state.items()}
    other = {f"module.{key}": value + 1 for key, value in state.items()}
    optimizer = torch.optim.SGD([torch.nn.Parameter(numbers)], lr=0.1, momentum=0.9).state_dict()
    checkpoint = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, data=Path("imagenet")),
        "best": np.float64(0.5),
        "optimizer": optimizer,
        "state_dict": other,
        "state_dict_ema": prefixed,
    }
    torch.save(state, FIXTURES / "zip.pth")
    torch.save(state, FIXTURES / "protocol_4.pth", pickle_protocol=4)
    torch.save(state, FIXTURES / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(checkpoint, FIXTURES / "checkpoint.pth")
    torch.save(checkpoint, FIXTURES / "legacy_checkpoint.pth", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), FIXTURES / "module.pth")
    # Tensors beside the weights, networks under any key, and files without weights.
    accuracy = torch.tensor(71.2)
    torch.save({"state_dict": prefixed, "best_acc1": accuracy, "loss": accuracy}, FIXTURES / "accuracy.pth")
    torch.save({"student": other, "teacher": state, "optimizer": optimizer}, FIXTURES / "teacher.pth")
    torch.save({"epoch": 3, "optimizer": optimizer, "loss": accuracy.item()}, FIXTURES / "optimizer.pth")
    torch.save({"epoch": 3, "model": torch.nn.Linear(2, 2)}, FIXTURES / "module_in_checkpoint.pth")
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), FIXTURES / "torchscript.pt")


def main():
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for fixture, (peer, file, name) in NETWORKS.items():
        keys, outputs = network(peer)
        document = {"file": file, "name": name, "keys": keys, "logits": outputs}
        (FIXTURES / f"{fixture}.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
        print(fixture, outputs[0][:3])
    files()


if __name__ == "__main__":
    main()
