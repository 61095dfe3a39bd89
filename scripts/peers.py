"""Networks of other libraries for parity.py, check_onnx.py and golden_import.py.

Requires torch, torchvision, timm, transformers, efficientnet_pytorch (the package of
lukemelas/EfficientNet-PyTorch), efficientnet_lite_pytorch, Pillow and safetensors.
"""
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

import numpy as np
import efficientnet_lite_pytorch
import timm
import torch
import torchvision
import transformers
from efficientnet_pytorch import EfficientNet
from PIL import Image
from safetensors.torch import save_file
from timm.models import adapt_input_conv
from torch import nn
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil

IMAGENET = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass
class Peer:
    """A network of another library: its name, construction, file and preprocessing."""

    source: str
    name: str
    build: Callable[[int], nn.Module]
    # Path of the weights in a new folder.
    file: str
    # Returns the preprocessing function; may write configuration files into the given folder.
    preprocess: Callable[[Path], Callable]
    # Additional options of `mbconv import`.
    options: tuple = ()
    # Applies the change that these options make to the network.
    finish: Callable[[nn.Module], nn.Module] = lambda model: model

    def write(self, model, folder):
        """Saves the weights in the library's format and returns the path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file
        if self.source == "transformers":
            # Next to preprocessor_config.json.
            model.save_pretrained(folder)
        elif path.suffix == ".safetensors":
            save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
        else:
            torch.save(model.state_dict(), path)
        if self.source == "timm" and path.name == "model.safetensors":
            # As in timm's repositories on the Hugging Face hub.
            config = {"architecture": self.name.split(".")[0], "pretrained_cfg": pretrained_cfg(self.name.split(",")[0])}
            (folder / "config.json").write_text(json.dumps(config))
        return path


def logits(model, images):
    """Returns the logits of a network of any library."""
    output = model(images)
    return output if isinstance(output, torch.Tensor) else output.logits


def randomise(model, seed, images):
    """Sets random weights and running statistics.

    The running statistics of each batch-norm are those of its input for `images`, perturbed, layer
    by layer, so that activations keep their scale in deep networks.
    """
    torch.manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, 0.0, 0.2)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, (2.0 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.1)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, module.in_features**-0.5)
            nn.init.normal_(module.bias, 0.0, 0.1)

    def settle(norm, inputs):
        mean, variance = (value.float() for value in (inputs[0].double().mean((0, 2, 3)), inputs[0].double().var((0, 2, 3))))
        norm.running_mean.copy_(mean + 0.2 * variance.sqrt() * torch.randn_like(mean))
        norm.running_var.copy_(variance * torch.empty_like(variance).uniform_(0.6, 1.6))

    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    model.eval()
    with torch.inference_mode():
        logits(model, images)
    for hook in hooks:
        hook.remove()
    return model


def torchvision_peer(name, weights, file, **options):
    def build(classes):
        return torchvision.models.get_model(name, num_classes=classes, **options)

    shown = name if not options else f"{name} ×{options['width_mult']}"
    return Peer("torchvision", shown, build, file, lambda _: weights.transforms())


def pretrained_cfg(name):
    cfg = timm.models.get_pretrained_cfg(name) or timm.models.get_pretrained_cfg(name.split(".")[0])
    keep = ("tag", "input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
    return {key: value for key, value in cfg.to_dict().items() if key in keep}


def timm_peer(name, file="model.safetensors", options=()):
    def build(classes):
        return timm.create_model(name.split(".")[0], num_classes=classes)

    def preprocess(_):
        return timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg(name)))

    return Peer("timm", name, build, file, preprocess, options)


def timm_grey_peer(name):
    """timm's RGB network converted to gray like `timm.create_model(…, in_chans=1)`."""
    colour = timm_peer(name, options=("--input-channels", "1"))

    def preprocess(folder):
        resize, crop, tensor, _ = colour.preprocess(folder).transforms
        # Mean over ImageNet's channel statistics.
        normalise = transforms.Normalize((0.449,), (0.226,))
        return transforms.Compose([resize, crop, transforms.Grayscale(1), tensor, normalise])

    def finish(model):
        stem = model.conv_stem
        model.conv_stem = nn.Conv2d(1, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=False)
        model.conv_stem.weight.data = adapt_input_conv(1, stem.weight.data)
        return model

    return replace(colour, name=f"{name}, gray", preprocess=preprocess, finish=finish)


def lukemelas_peer(number):
    name = f"efficientnet-b{number}"

    def preprocess(_):
        # As in its examples/imagenet/main.py.
        size = EfficientNet.get_image_size(name)
        resize = transforms.Resize(size, interpolation=InterpolationMode.BICUBIC)
        return transforms.Compose([resize, transforms.CenterCrop(size), transforms.ToTensor(), IMAGENET])

    def build(classes):
        return EfficientNet.from_name(name, num_classes=classes)

    return Peer("lukemelas", name, build, f"{name}.pth", preprocess)


def lite_peer(number, **options):
    """Lite networks of efficientnet-lite-pytorch, whose padding is fixed for one image size."""
    name = f"efficientnet-lite{number}"

    def build(classes):
        return efficientnet_lite_pytorch.EfficientNet.from_name(name, num_classes=classes, **options)

    def preprocess(_):
        size = build(1).input_image_size
        resize = transforms.Resize(size, interpolation=InterpolationMode.BICUBIC)
        # The weights were trained on pixels from -1 to 1.
        normalize = transforms.Normalize((0.5,) * 3, (0.5,) * 3)
        return transforms.Compose([resize, transforms.CenterCrop(size), transforms.ToTensor(), normalize])

    return Peer("lukemelas", name, build, f"{name}.pth", preprocess)


def hf_preprocess(processor):
    """Saves an image processor of transformers and returns its preprocessing.

    Use the Pillow backends: the torchvision backends resize tensors, whose pixels differ by one.
    """

    def preprocess(folder):
        processor.save_pretrained(folder)
        return lambda image: processor(image, return_tensors="pt")["pixel_values"][0]

    return preprocess


def hf_mobilenet_peer(width):
    def build(classes):
        config = transformers.MobileNetV2Config(depth_multiplier=width, num_labels=classes)
        return transformers.MobileNetV2ForImageClassification(config)

    # As in google/mobilenet_v2_*.
    processor = MobileNetV2ImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        resample=Image.Resampling.BILINEAR,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return Peer("transformers", f"MobileNetV2 {width}", build, "model.safetensors", hf_preprocess(processor))


# google/efficientnet-b*'s config.json: width, depth, side, hidden, depthwise_padding.
HF_EFFICIENTNET = {
    0: (1.0, 1.0, 224, 1280, []),
    1: (1.0, 1.1, 240, 1280, [16]),
    2: (1.1, 1.2, 260, 1408, [5, 8, 16]),
    3: (1.2, 1.4, 300, 1536, [5, 18]),
    4: (1.4, 1.8, 380, 1792, [6]),
    5: (1.6, 2.2, 456, 2048, [13, 27]),
    6: (1.8, 2.6, 528, 2304, [31]),
    7: (2.0, 3.1, 600, 2560, [18]),
}


def hf_efficientnet_peer(number):
    width, depth, size, hidden, padding = HF_EFFICIENTNET[number]

    def build(classes):
        config = transformers.EfficientNetConfig(
            width_coefficient=width,
            depth_coefficient=depth,
            image_size=size,
            hidden_dim=hidden,
            depthwise_padding=padding,
            num_labels=classes,
        )
        return transformers.EfficientNetForImageClassification(config)

    # As in google/efficientnet-b*: nearest-neighbor squash, two divisions by the deviation.
    processor = EfficientNetImageProcessorPil(
        size={"height": size, "width": size},
        do_center_crop=False,
        resample=Image.Resampling.NEAREST,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.47853944, 0.4732864, 0.47434163],
    )
    return Peer("transformers", f"EfficientNet B{number}", build, "model.safetensors", hf_preprocess(processor))


class FlatBlock(nn.Module):
    """`InvertedResidual` of d-li14/mobilenetv2.pytorch."""

    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        self.identity = stride == 1 and inputs == outputs
        expand = [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        self.conv = nn.Sequential(
            *(expand if expansion != 1 else []),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x):
        return x + self.conv(x) if self.identity else self.conv(x)


class FlatMobileNetV2(nn.Module):
    """MobileNetV2 with the tensor names of d-li14/mobilenetv2.pytorch."""

    def __init__(self, classes, width):
        super().__init__()

        divisor = 4 if width == 0.1 else 8

        def rounded(channels):
            new = max(divisor, int(channels + divisor / 2) // divisor * divisor)
            return new + divisor if new < 0.9 * channels else new

        def activated(inputs, outputs, kernel, stride):
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())

        table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
        inputs = rounded(32 * width)
        layers = [activated(3, inputs, 3, 2)]
        for expansion, channels, repeats, stride in table:
            outputs = rounded(channels * width)
            for index in range(repeats):
                layers.append(FlatBlock(inputs, outputs, stride if index == 0 else 1, expansion))
                inputs = outputs
        head = rounded(1280 * width) if width > 1 else 1280
        self.features = nn.Sequential(*layers)
        self.conv = activated(inputs, head, 1, 1)
        self.classifier = nn.Linear(head, classes)

    def forward(self, x):
        return self.classifier(self.conv(self.features(x)).mean((2, 3)))


def flat_peer(width):
    weights = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
    build = lambda classes: FlatMobileNetV2(classes, width)
    return Peer("d-li14", f"MobileNetV2 {width}", build, f"mobilenetv2_{width}-c5e733a8.pth", lambda _: weights.transforms())


def peers():
    """Yields every architecture in every layout that has published weights."""
    tv = torchvision.models
    yield torchvision_peer("mobilenet_v2", tv.MobileNet_V2_Weights.IMAGENET1K_V2, "mobilenet_v2-7ebf99e0.pth")
    yield torchvision_peer("mobilenet_v2", tv.MobileNet_V2_Weights.IMAGENET1K_V1, "mobilenet_v2-b0353104.pth")
    for width in (0.1, 0.25, 0.35, 0.5, 0.75, 1.3, 1.4):
        weights = tv.MobileNet_V2_Weights.IMAGENET1K_V2
        yield torchvision_peer("mobilenet_v2", weights, "checkpoint.pth", width_mult=width)
    for number in range(8):
        weights = getattr(tv, f"EfficientNet_B{number}_Weights")
        yield torchvision_peer(f"efficientnet_b{number}", weights.DEFAULT, f"efficientnet_b{number}.pth")
        if weights.DEFAULT is not weights.IMAGENET1K_V1:
            yield torchvision_peer(f"efficientnet_b{number}", weights.IMAGENET1K_V1, f"efficientnet_b{number}_rwightman-bac287d4.pth")
    for name in ("035", "050.lamb_in1k", "075", "100.ra_in1k", "110d.ra_in1k", "120d.ra_in1k", "140.ra_in1k"):
        yield timm_peer(f"mobilenetv2_{name}")
    for name in ("b0.ra_in1k", "b1.ft_in1k", "b2.ra_in1k", "b3.ra2_in1k", "b4.ra2_in1k", "b5.sw_in12k_ft_in1k"):
        yield timm_peer(f"efficientnet_{name}")
    # Detected by the file name alone.
    yield timm_peer("efficientnet_b0.ra_in1k", "efficientnet_b0_ra-3dd342df.pth")
    yield timm_peer("tf_efficientnet_b0.ap_in1k", "tf_efficientnet_b0_ap-f262efe1.pth")
    yield timm_peer("tf_efficientnet_b3.ns_jft_in1k", "tf_efficientnet_b3_ns-9d44bf68.pth")
    # Converted during the import.
    for name in ("mobilenetv2_100.ra_in1k", "efficientnet_b0.ra_in1k"):
        yield timm_grey_peer(name)
    # Selected by the user.
    yield timm_peer("tf_efficientnet_b1.in1k", "checkpoint.pth", ("--arch", "tf_efficientnet_b1"))
    for number in range(6):
        yield timm_peer(f"tf_efficientnet_b{number}.in1k")
    for number in (6, 7):
        yield timm_peer(f"tf_efficientnet_b{number}.ns_jft_in1k")
    yield timm_peer("tf_efficientnet_b8.ra_in1k")
    yield timm_peer("tf_efficientnet_l2.ns_jft_in1k_475")
    for number in range(5):
        yield timm_peer(f"tf_efficientnet_lite{number}.in1k")
    yield timm_peer("efficientnet_lite0.ra_in1k")
    for size, tag in (("es", "ra"), ("em", "ra2"), ("el", "ra")):
        yield timm_peer(f"efficientnet_{size}.{tag}_in1k")
        yield timm_peer(f"tf_efficientnet_{size}.in1k")
    for number in range(9):
        yield lukemelas_peer(number)
    for number in range(5):
        yield lite_peer(number)
    for width in (0.35, 0.75, 1.0, 1.4):
        yield hf_mobilenet_peer(width)
    for number in HF_EFFICIENTNET:
        yield hf_efficientnet_peer(number)
    for width in (0.1, 0.25, 0.35, 0.5, 0.75, 1.0):
        yield flat_peer(width)
