//! Published weights by name, from a cache that another tool could have filled.

use burn::tensor::{Device, Tensor};
use mbconv_hub::{Cache, Hub, HubError};
use mbconv_interop::{Pretrained, PretrainedError, pretrained_from};
use mbconv_nets::weights::{Precision, to_safetensors_in};
use mbconv_nets::{EfficientNetConfig, Layout, MobileNetV2Config, NetworkOptions};

#[test]
fn pretrained_loads_a_network_by_name_from_the_cache() {
    let (folder, device) = (tempfile::tempdir().unwrap(), Device::flex());
    let network = NetworkOptions::new("mobilenet_v2_0.5", 1000).architecture().unwrap().init(&device);
    let snapshot = folder.path().join("huggingface/hub/models--timm--mobilenetv2_050.lamb_in1k/snapshots/main");
    std::fs::create_dir_all(&snapshot).unwrap();
    let file = to_safetensors_in(&network, Layout::Timm, Precision::F32, None).unwrap();
    std::fs::write(snapshot.join("model.safetensors"), file).unwrap();

    let hub = Hub::new(Cache { offline: true, ..Cache::at(folder.path()) }).unwrap();
    let model = pretrained_from(&hub, "timm/mobilenetv2_050", &device).unwrap().model;
    let image = Tensor::<4>::ones([1, 3, 64, 64], &device);
    let difference: f32 = (model.network.forward(image.clone()) - network.forward(image)).abs().max().into_scalar();
    assert_eq!(difference, 0.0);
    assert_eq!(model.card.classes.len(), 1000);

    let same = MobileNetV2Config::pretrained_from(&hub, "timm/mobilenetv2_050", &device).unwrap();
    assert_eq!(same.architecture(), network.architecture());
    let other = EfficientNetConfig::pretrained_from(&hub, "timm/mobilenetv2_050", &device).unwrap_err();
    assert!(matches!(other, PretrainedError::Family { .. }), "{other}");

    let error = pretrained_from(&hub, "timm/mobilenetv2_100", &device).unwrap_err();
    assert!(matches!(error, PretrainedError::Hub(HubError::Offline { .. })), "{error}");
}
