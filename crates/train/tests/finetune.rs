//! Networks that start from weights of other libraries.

#[path = "../../interop/tests/fixture/mod.rs"]
#[allow(dead_code)]
mod fixture;

use burn::tensor::Device;
use fixture::{Fixture, fixture};
use mbconv_nets::NetworkOptions;
use mbconv_train::finetune::load_body;

#[test]
fn weights_without_a_classifier_get_a_new_one() {
    let fixture = fixture("timm_mobilenet_v2");
    let folder = tempfile::tempdir().unwrap();
    let path = fixture.write(folder.path(), |state| {
        state.remove("classifier.weight");
        state.remove("classifier.bias");
    });
    let network = NetworkOptions::new("mobilenet_v2_0.35", 3).architecture().unwrap().init(&Device::default());
    let classes = ["class_0", "b", "c"].map(String::from);
    let (_, notes) = load_body(network, "mobilenet_v2_0.35", &classes, &path, None).unwrap();
    assert!(notes.iter().any(|line| line == "the classifier is new, for the data's 3 classes"), "{notes:?}");
}

#[test]
fn recipe_decides_architecture_and_input_channels() {
    let fixture = Fixture { file: "weights".into(), ..fixture("timm_tf_efficientnet") };
    let folder = tempfile::tempdir().unwrap();
    let path = fixture.write(folder.path(), |_| ());
    let mut options = NetworkOptions::new("tf_efficientnet_b0", 3);
    options.input_channels = 1;
    let network = options.architecture().unwrap().init(&Device::default());
    let classes = ["a", "b", "c"].map(String::from);
    let (tuned, notes) = load_body(network, "tf_efficientnet_b0", &classes, &path, None).unwrap();
    assert!(notes[1].starts_with("tf_efficientnet_b0 with 10 classes in timm's layout"), "{notes:?}");
    assert_eq!(notes[2], "the stem's weights are summed, for 1 input channel instead of 3");
    let stem: Vec<f32> = tuned.stem.weight.val().into_data().iter().collect();
    let sums: Vec<f32> = fixture
        .values("conv_stem.weight")
        .chunks(27)
        .flat_map(|filter| (0..9).map(|at| filter[at] + filter[at + 9] + filter[at + 18]).collect::<Vec<f32>>())
        .collect();
    assert!(stem.iter().zip(&sums).all(|(a, b)| (a - b).abs() < 1e-6) && stem.len() == sums.len());
    assert_eq!(tuned.classifier.weight.dims()[0], 3);
}
