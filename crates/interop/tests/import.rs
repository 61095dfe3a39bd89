//! Imported weights reproduce the logits of their libraries, which `scripts/golden_import.py`
//! computed in double precision.

mod fixture;

use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::{Device, Tensor, TensorData};
use fixture::{Fixture, State, fixture, uniform};
use mbconv_interop::import::{ImportError, ImportOptions, Loaded, load_weights};
use mbconv_interop::model_file::Model;
use mbconv_nets::weights::Precision;
use proptest::prelude::*;
use safetensors::tensor::Dtype;

const IMAGES: [usize; 4] = [2, 3, 64, 64];

fn load(path: &Path) -> Result<Loaded, ImportError> {
    load_weights(path, &ImportOptions::default(), &Device::default())
}

fn logits(model: &Model) -> Vec<f64> {
    let images: Vec<f32> = uniform("images", IMAGES.iter().product()).map(|u| u as f32).collect();
    let images = Tensor::<4>::from_data(TensorData::new(images, IMAGES), &Device::default());
    model.network.forward(images).into_data().iter::<f64>().collect()
}

fn check_logits(fixture_name: &str) {
    let fixture = fixture(fixture_name);
    let folder = tempfile::tempdir().unwrap();
    let path = fixture.write(folder.path(), |_| ());
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.model.card.architecture.name, fixture.name);
    let found = logits(&loaded.model);
    let expected: Vec<f64> = fixture.logits.concat();
    let size = expected.iter().fold(0.0f64, |size, value| size.max(value.abs()));
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("{fixture_name}: {:.1e} of {size:.2}", worst / size);
    assert!(worst <= 2e-5 * size, "{fixture_name}: {worst:.1e} of {size:.2}");
    // The saved model opens unchanged.
    let saved = folder.path().join("model.safetensors");
    Model::save(&loaded.model.network, &loaded.model.card, Precision::F32, &saved).unwrap();
    let opened = load(&saved).unwrap();
    assert!(opened.origin.is_empty());
    assert_eq!(opened.model.card, loaded.model.card);
    assert_eq!(logits(&opened.model), found);
}

#[test]
fn torchvision_and_d_li14_logits_are_reproduced() {
    check_logits("torchvision_mobilenet_v2");
    check_logits("flat_mobilenet_v2");
    check_logits("flat_mobilenet_v2_0.1");
}

#[test]
fn timm_logits_are_reproduced() {
    for name in ["timm_mobilenet_v2", "timm_efficientnet", "timm_tf_efficientnet", "timm_tf_lite"] {
        check_logits(name);
    }
}

#[test]
fn logits_of_fused_blocks_are_reproduced() {
    check_logits("timm_edgetpu");
    check_logits("timm_tf_edgetpu");
    // Its first stage has two blocks, without residuals.
    check_logits("timm_edgetpu_medium");
}

#[test]
fn lukemelas_logits_are_reproduced() {
    check_logits("lukemelas_efficientnet");
    check_logits("lukemelas_lite");
}

#[test]
fn hugging_face_logits_are_reproduced() {
    check_logits("hugging_face_mobilenet_v2");
    check_logits("hugging_face_efficientnet");
}

/// Renames the keys of a state.
fn rename(state: &mut State, to: impl Fn(&str) -> String) {
    *state = std::mem::take(state).into_iter().map(|(key, tensor)| (to(&key), tensor)).collect();
}

/// Returns a float tensor of zeros.
fn zeros(shape: &[usize]) -> (Dtype, Vec<usize>, Vec<u8>) {
    (Dtype::F32, shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()])
}

/// Returns a renaming that replaces the prefix `from` by `to`.
fn replace_prefix<'a>(from: &'a str, to: &'a str) -> impl Fn(&str) -> String + 'a {
    move |key| key.strip_prefix(from).map_or_else(|| key.to_string(), |rest| format!("{to}{rest}"))
}

#[test]
fn wrapped_and_renamed_weights_are_recognized() {
    let folder = tempfile::tempdir().unwrap();
    for (name, classifier) in [("timm_mobilenet_v2", "classifier"), ("torchvision_mobilenet_v2", "classifier.1")] {
        let fixture = fixture(name);
        let alone = logits(&load(&fixture.write(folder.path(), |_| ())).unwrap().model);
        let same = |what: &str, note: &str, change: &dyn Fn(&mut State)| {
            let loaded = load(&fixture.write(folder.path(), change)).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(logits(&loaded.model), alone, "{name}: {what}");
            assert!(loaded.origin.contains(note), "{what}: {}", loaded.origin);
        };
        for prefix in [
            "module.",
            "model.",
            "backbone.",
            "encoder.",
            "net.",
            "_orig_mod.",
            "model.module.",
            "model.net._orig_mod.x.",
        ] {
            same(prefix, "", &|state| rename(state, |key| format!("{prefix}{key}")));
        }
        same("a criterion", "ignored tensors beside the network: `criterion.weight`", &|state| {
            rename(state, |key| format!("model.{key}"));
            state.insert("criterion.weight".into(), zeros(&[10]));
        });
        same("counted operations", "ignored tensors", &|state| {
            for key in state.keys().cloned().collect::<Vec<_>>() {
                let layer = key.rsplit_once('.').unwrap().0;
                state.insert(format!("{layer}.total_ops"), zeros(&[1]));
                state.insert(format!("{layer}.total_params"), zeros(&[1]));
            }
            state.insert("total_ops".into(), zeros(&[1]));
        });
        let old = format!("{classifier}.");
        for new in
            ["classifier.", "classifier.1.", "classifier.0.", "fc.", "head.fc."].into_iter().filter(|new| *new != old)
        {
            let note = format!("classifier `{}`", new.trim_end_matches('.'));
            same(new, &note, &|state| rename(state, replace_prefix(&old, new)));
        }
        same("a separate head", "prefix `backbone.`, classifier `head`", &|state| {
            rename(state, |key| match key.strip_prefix(&old) {
                Some(rest) => format!("head.{rest}"),
                None => format!("backbone.{key}"),
            });
        });
        same("a sequence", "prefix `0.`, classifier `2`", &|state| {
            rename(state, |key| match key.strip_prefix(&old) {
                Some(rest) => format!("2.{rest}"),
                None => format!("0.{key}"),
            });
        });
    }
    // Other names of the feature extractor.
    for (name, scope) in [("torchvision_mobilenet_v2", "features."), ("hugging_face_mobilenet_v2", "mobilenet_v2.")] {
        let fixture = fixture(name);
        let alone = logits(&load(&fixture.write(folder.path(), |_| ())).unwrap().model);
        let path = fixture.write(folder.path(), |state| rename(state, replace_prefix(scope, "encoder.")));
        assert_eq!(logits(&load(&path).unwrap().model), alone, "{name}");
    }
}

#[test]
fn prefix_selects_one_of_several_networks() {
    let fixture = fixture("timm_mobilenet_v2");
    let folder = tempfile::tempdir().unwrap();
    let alone = logits(&load(&fixture.write(folder.path(), |_| ())).unwrap().model);
    let path = fixture.write(folder.path(), |state| {
        let teacher: State = state.iter().map(|(key, tensor)| (format!("teacher.{key}"), tensor.clone())).collect();
        for (_, _, bytes) in state.values_mut() {
            bytes.fill(0);
        }
        rename(state, |key| format!("student.{key}"));
        state.extend(teacher);
    });
    let error = load(&path).unwrap_err();
    assert!(error.to_string().contains("several networks, with the prefixes `student.`, `teacher.`"), "{error}");
    assert!(error.hint().unwrap().contains("--prefix student."), "{:?}", error.hint());
    let load = |prefix: &str| {
        let options = ImportOptions { prefix: Some(prefix.into()), ..ImportOptions::default() };
        load_weights(&path, &options, &Device::default())
    };
    assert_eq!(logits(&load("teacher.").unwrap().model), alone);
    assert_eq!(logits(&load("teacher").unwrap().model), alone);
    let error = load("network.").unwrap_err().to_string();
    assert!(error.contains("only with `student.`, `teacher.`"), "{error}");
}

#[test]
fn tensors_that_may_belong_to_the_network_are_errors() {
    let fixture = fixture("timm_mobilenet_v2");
    let folder = tempfile::tempdir().unwrap();
    let alone = logits(&load(&fixture.write(folder.path(), |_| ())).unwrap().model);
    // A layer after the network, or normalization in it.
    for (key, shape) in [("fc.weight", &[7, 10][..]), ("normalize.mean", &[1, 3, 1, 1])] {
        let path = fixture.write(folder.path(), |state| {
            rename(state, |key| format!("model.{key}"));
            state.insert(key.into(), zeros(shape));
        });
        let error = load(&path).unwrap_err();
        assert!(error.to_string().contains(&format!("`{key}` {shape:?}")), "{error}");
        assert!(error.hint().unwrap().contains("--prefix model."));
        let options = ImportOptions { prefix: Some("model.".into()), ..ImportOptions::default() };
        let loaded = load_weights(&path, &options, &Device::default()).unwrap();
        assert_eq!(logits(&loaded.model), alone);
        assert!(loaded.origin.contains(&format!("ignored tensors beside the network: `{key}`")), "{}", loaded.origin);
    }
}

#[test]
fn missing_classifiers_are_errors_unless_allowed() {
    let fixture = fixture("timm_mobilenet_v2");
    let folder = tempfile::tempdir().unwrap();
    let features = fixture.keys["classifier.weight"][1];
    let body = |state: &mut State| state.retain(|key, _| !key.starts_with("classifier."));
    type Change<'a> = (&'a str, &'a dyn Fn(&mut State));
    let changes: [Change; 4] = [
        ("have no classifier", &body),
        ("`classifier.0.weight` [512", &|state| {
            body(state);
            for (key, shape) in
                [("0.weight", &[512, features][..]), ("0.bias", &[512]), ("2.weight", &[7, 512]), ("2.bias", &[7])]
            {
                state.insert(format!("classifier.{key}"), zeros(shape));
            }
        }),
        ("`head.weight` [10", &|state| {
            state.insert("head.weight".into(), zeros(&[10, features]));
            state.insert("head.bias".into(), zeros(&[10]));
            body(state);
            state.insert("neck.weight".into(), zeros(&[features]));
        }),
        ("`projection.weight` [128", &|state| {
            body(state);
            state.insert("projection.weight".into(), zeros(&[128, features]));
            state.insert("projection.bias".into(), zeros(&[128]));
        }),
    ];
    for (words, change) in changes {
        let path = fixture.write(folder.path(), change);
        let error = load(&path).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("have no classifier") && message.contains(words), "{message}");
        assert!(error.hint().unwrap().contains("--classes"), "{words}");
        let options = ImportOptions { without_classifier: true, ..ImportOptions::default() };
        let loaded = load_weights(&path, &options, &Device::default()).unwrap();
        assert!(loaded.without_classifier && loaded.origin.contains("without"), "{}", loaded.origin);
    }
}

#[test]
fn single_output_is_read_as_a_sigmoid() {
    let fixture = fixture("timm_mobilenet_v2");
    let folder = tempfile::tempdir().unwrap();
    let all = logits(&load(&fixture.write(folder.path(), |_| ())).unwrap().model);
    let path = fixture.write(folder.path(), |state| {
        for key in ["classifier.weight", "classifier.bias"] {
            let (_, shape, bytes) = state.get_mut(key).unwrap();
            bytes.truncate(bytes.len() / shape[0]);
            shape[0] = 1;
        }
    });
    let loaded = load(&path).unwrap();
    assert!(loaded.origin.contains("the single output is read as a sigmoid"), "{}", loaded.origin);
    assert_eq!(loaded.model.card.classes, ["class_0", "class_1"]);
    // The softmax of 0 and x is 1 / (1 + exp(-x)).
    let found = logits(&loaded.model);
    assert_eq!(found, [0.0, all[0], 0.0, all[10]]);
    let (named, note) = loaded.model.with_classes(vec!["no".into(), "yes".into()]).unwrap();
    assert_eq!((note, named.card.architecture.num_classes, logits(&named)), (None, 2, found));
}

#[test]
fn folders_of_save_pretrained_are_imported_with_their_configuration() {
    let fixture = Fixture { file: "model".into(), ..fixture("hugging_face_mobilenet_v2") };
    let folder = tempfile::tempdir().unwrap();
    fixture.write(folder.path(), |_| ());
    let labels: Vec<String> = (0..10).map(|index| format!("\"{index}\": \"label {index}\"")).collect();
    let config = |more: &str| {
        let text = format!(r#"{{"model_type": "mobilenet_v2", "id2label": {{{}}}{more}}}"#, labels.join(", "));
        std::fs::write(folder.path().join("config.json"), text).unwrap();
    };
    let processor = r#"{"size": {"shortest_edge": 180}, "crop_size": {"height": 160, "width": 160}, "resample": 2,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;
    std::fs::write(folder.path().join("preprocessor_config.json"), processor).unwrap();
    config("");
    let card = load(folder.path()).unwrap().model.card;
    assert_eq!(
        (card.classes[9].as_str(), card.preprocess.resize, card.preprocess.crop),
        ("label 9", 180.into(), 160.into())
    );
    // Padding and batch-norm's epsilon are read from the configuration.
    config(r#", "tf_padding": false, "layer_norm_eps": 0.01"#);
    let architecture = load(folder.path()).unwrap().model.card.architecture;
    assert_eq!((architecture.name.as_str(), architecture.norm_epsilon), ("mobilenet_v2_0.35", Some(0.01)));
    for (more, words) in [
        (r#", "hidden_act": "gelu""#, "`hidden_act` = \"gelu\""),
        (r#", "output_stride": 16"#, "`output_stride` = 16"),
        (r#", "problem_type": "regression""#, "`problem_type` = \"regression\""),
    ] {
        config(more);
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("config.json"), "{error}");
    }
    config(r#", "problem_type": "multi_label_classification""#);
    let several = load(folder.path()).unwrap();
    assert!(
        several.origin.contains("each class has a sigmoid probability") && several.model.card.multi_label.is_some()
    );
    // Other scales of the pixels, or none.
    for (processor, mean, std) in [
        (r#""rescale_factor": 0.00784313725490196, "rescale_offset": true, "do_normalize": false"#, 0.5, 0.5),
        (r#""do_normalize": false"#, 0.0, 1.0),
        (r#""rescale_factor": 1.0, "image_mean": [127.5, 127.5, 127.5], "image_std": [51.0, 51.0, 51.0]"#, 0.5, 0.2),
    ] {
        std::fs::write(folder.path().join("preprocessor_config.json"), format!("{{{processor}}}")).unwrap();
        let preprocess = load(folder.path()).unwrap().model.card.preprocess;
        assert!((preprocess.mean[0] - mean).abs() < 1e-5 && (preprocess.std[0] - std).abs() < 1e-5, "{preprocess:?}");
    }

    // Errors describe other folders.
    let at = |name: &str, file: &str| {
        let place = folder.path().join(name);
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join(file), "").unwrap();
        load(&place).unwrap_err()
    };
    let error = at("sharded", "model.safetensors.index.json");
    assert!(error.to_string().contains("the index of a model in several files"), "{error}");
    assert!(error.hint().unwrap().contains("max_shard_size"));
    assert!(at("saved", "saved_model.pb").to_string().contains("TensorFlow"));
    let above = at("above", "trainer_state.json");
    assert!(above.to_string().contains("without best.safetensors or model.safetensors"), "{above}");
    std::fs::create_dir_all(folder.path().join("above/checkpoint-500")).unwrap();
    fixture.write(&folder.path().join("above/checkpoint-500"), |_| ());
    assert!(load(&folder.path().join("above")).unwrap_err().hint().unwrap().contains("checkpoint-500"));
}

#[test]
fn invalid_weights_are_errors_that_name_the_tensor() {
    let fixture = fixture("flat_mobilenet_v2");
    let folder = tempfile::tempdir().unwrap();
    let error = |change: &dyn Fn(&mut State)| load(&fixture.write(folder.path(), change)).unwrap_err().to_string();
    let key = "features.3.conv.3.weight";
    let found = error(&|state| drop(state.remove(key)));
    assert!(found.contains("1 missing: features.3.conv.3.weight"), "{found}");
    let found = error(&|state| {
        let tensor = state[key].clone();
        state.insert("teacher.weight".into(), tensor);
    });
    assert!(found.contains("1 unused: teacher.weight"), "{found}");
    let found = error(&|state| state.get_mut(key).unwrap().1.swap(0, 1));
    assert!(found.contains("1 of another shape: features.3.conv.3.weight"), "{found}");
    let found = error(&|state| state.get_mut(key).unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    assert!(found.contains("features.3.conv.3.weight") && found.contains("not finite"), "{found}");
    let found = error(&|state| state.get_mut(key).unwrap().0 = Dtype::I32);
    assert!(found.contains("features.3.conv.3.weight") && found.contains("integers"), "{found}");
    let found = error(&|state| {
        let (dtype, _, bytes) = state.get_mut(key).unwrap();
        *dtype = Dtype::F8_E4M3;
        bytes.truncate(bytes.len() / 4);
    });
    assert!(found.contains("features.3.conv.3.weight") && found.contains("floats of 8 bits"), "{found}");
    // The error has the source's key.
    let key = "features.3.conv.4.running_var";
    let found = error(&|state| state.get_mut(key).unwrap().2[..4].copy_from_slice(&(-0.5f32).to_le_bytes()));
    assert!(found.contains(key) && found.contains("negative"), "{found}");
}

#[test]
fn errors_have_hints() {
    let fixture = fixture("flat_mobilenet_v2");
    let folder = tempfile::tempdir().unwrap();
    let hint = |arch: Option<&str>, change: &dyn Fn(&mut State)| {
        let options = ImportOptions { arch: arch.map(String::from), ..ImportOptions::default() };
        let error = load_weights(&fixture.write(folder.path(), change), &options, &Device::default()).unwrap_err();
        error.hint().unwrap_or_else(|| panic!("{error}"))
    };
    let key = "features.3.conv.3.weight";
    // Another size, another family, and an unknown name.
    for name in ["mobilenet_v2_0.5", "efficientnet_b0", "resnet50"] {
        assert!(hint(Some(name), &|_| ()).contains("omit --arch"), "{name}");
    }
    assert!(hint(None, &|state| drop(state.remove(key))).contains("lukemelas/EfficientNet-PyTorch"));
    assert!(hint(None, &|state| state.clear()).contains("Hugging Face transformers"));
    assert!(hint(None, &|state| state.get_mut(key).unwrap().0 = Dtype::I32).contains("16, 32 or 64 bits"));
    let nan = f32::NAN.to_le_bytes();
    assert!(
        hint(None, &|state| state.get_mut(key).unwrap().2[..4].copy_from_slice(&nan)).contains("another checkpoint")
    );
    let cut = folder.path().join("cut.pth");
    std::fs::write(&cut, b"PK\x03\x04\0\0").unwrap();
    assert!(load(&cut).unwrap_err().hint().unwrap().contains("check that the file is complete"));
}

#[test]
fn tensorflow_conventions_do_not_depend_on_the_name() {
    for name in ["lukemelas_efficientnet", "hugging_face_efficientnet"] {
        let fixture = fixture(name);
        let folder = tempfile::tempdir().unwrap();
        let path = fixture.write(folder.path(), |_| ());
        let options = ImportOptions { arch: Some("efficientnet_b0".into()), ..ImportOptions::default() };
        let named = load_weights(&path, &options, &Device::default()).unwrap().model;
        let found = load(&path).unwrap().model;
        assert_eq!(named.card, found.card, "{name}");
        assert_eq!(logits(&named), logits(&found), "{name}");
    }
}

#[test]
fn conventions_follow_from_the_hugging_face_repository() {
    let fixture = Fixture { file: "model".into(), ..fixture("timm_tf_efficientnet") };
    let folder = tempfile::tempdir().unwrap();
    let snapshot = |repository: &str| {
        let place = folder.path().join(repository).join("snapshots/0123456789abcdef");
        std::fs::create_dir_all(&place).unwrap();
        fixture.write(&place, |_| ())
    };
    for (repository, name, mean) in [
        ("models--timm--tf_efficientnet_b0.ap_in1k", "tf_efficientnet_b0", 0.5),
        ("models--timm--tf_efficientnet_b0.in1k", "tf_efficientnet_b0", 0.485),
        ("models--timm--efficientnet_b0.ra_in1k", "efficientnet_b0", 0.485),
    ] {
        let card = load(&snapshot(repository)).unwrap().model.card;
        assert_eq!((card.architecture.name.as_str(), card.preprocess.mean[0]), (name, mean), "{repository}");
    }
    // The configuration beside the weights takes precedence.
    let path = snapshot("models--timm--tf_efficientnet_b0.ap_in1k");
    let config = r#"{"architecture": "tf_efficientnet_b0", "pretrained_cfg": {"tag": "ap_in1k", "input_size": [3, 160, 160],
        "crop_pct": 1.0, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}"#;
    std::fs::write(path.with_file_name("config.json"), config).unwrap();
    let card = load(&path).unwrap().model.card;
    assert_eq!((card.preprocess.crop, card.preprocess.mean), (160.into(), [0.1, 0.2, 0.3]));
    // Other folder names are ignored.
    assert!(matches!(load(&snapshot("timm--tf_efficientnet_b0.in1k")), Err(ImportError::Ambiguous { .. })));
}

#[test]
fn configuration_of_another_network_is_ignored() {
    let config = |architecture: &str| {
        format!(
            r#"{{"architecture": "{architecture}", "label_names": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "nine"],
            "pretrained_cfg": {{"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}}}"#
        )
    };
    for (name, others) in [
        ("timm_mobilenet_v2", &["efficientnet_b0", "mobilenetv2_050", "resnet50", ""][..]),
        // timm's configurations are of timm's layout.
        ("lukemelas_efficientnet", &["efficientnet_b0", "tf_efficientnet_b0"]),
    ] {
        let fixture = fixture(name);
        let folder = tempfile::tempdir().unwrap();
        let path = fixture.write(folder.path(), |_| ());
        let alone = load(&path).unwrap().model;
        for other in others {
            std::fs::write(folder.path().join("config.json"), config(other)).unwrap();
            let beside = load(&path).unwrap().model;
            assert_eq!(beside.card, alone.card, "{name} beside {other}");
            // The user's option must still match.
            let options = ImportOptions { arch: Some("efficientnet_b3".into()), ..ImportOptions::default() };
            assert!(matches!(
                load_weights(&path, &options, &Device::default()),
                Err(ImportError::Unknown { named: true, .. })
            ));
        }
    }
}

#[test]
fn advprop_weights_scale_pixels_to_minus_one_to_one() {
    let fixture = fixture("lukemelas_efficientnet");
    let folder = tempfile::tempdir().unwrap();
    let path = fixture.write(folder.path(), |_| ());
    let adversarial = folder.path().join("adv-efficientnet-b0-b64d5a18.pth");
    std::fs::rename(&path, &adversarial).unwrap();
    let preprocess = load(&adversarial).unwrap().model.card.preprocess;
    assert_eq!((preprocess.mean, preprocess.std), ([0.5; 3], [0.5; 3]));
}

#[test]
fn ambiguous_weights_need_arch_or_a_configuration() {
    let fixture = Fixture { file: "weights".into(), ..fixture("timm_tf_efficientnet") };
    let folder = tempfile::tempdir().unwrap();
    let path = fixture.write(folder.path(), |_| ());
    let error = load(&path).unwrap_err();
    assert!(matches!(error, ImportError::Ambiguous { .. }));
    assert!(error.hint().unwrap().contains("--arch tf_efficientnet_b0"));
    let options = ImportOptions {
        arch: Some("tf_efficientnet_b0.ns_jft_in1k".into()),
        preprocess: Some("timm_tf_ap".into()),
        ..ImportOptions::default()
    };
    let loaded = load_weights(&path, &options, &Device::default()).unwrap();
    assert_eq!(loaded.model.card.architecture.name, "tf_efficientnet_b0");
    assert_eq!(loaded.model.card.preprocess.mean, [0.5; 3]);
    let options = ImportOptions { arch: Some("efficientnet_b1".into()), ..ImportOptions::default() };
    let error = load_weights(&path, &options, &Device::default()).unwrap_err();
    assert!(error.to_string().contains("does not fit efficientnet_b1") && error.hint().is_some(), "{error}");
    let options = ImportOptions {
        arch: Some("efficientnet_b0".into()),
        preprocess: Some("keras".into()),
        ..ImportOptions::default()
    };
    let error = load_weights(&path, &options, &Device::default()).unwrap_err();
    assert!(error.to_string().contains("`keras`") && error.hint().unwrap().contains("torchvision_v1"));
    // timm's configuration resolves the ambiguity.
    let config = r#"{"architecture": "tf_efficientnet_b0", "label_names": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "nine"],
        "pretrained_cfg": {"tag": "ap_in1k", "input_size": [3, 192, 192], "crop_pct": 0.8, "interpolation": "bilinear",
        "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let card = load(&path).unwrap().model.card;
    assert_eq!((card.architecture.name.as_str(), card.classes[9].as_str()), ("tf_efficientnet_b0", "nine"));
    assert_eq!(
        (card.preprocess.resize, card.preprocess.crop, card.preprocess.mean),
        (240.into(), 192.into(), [0.1, 0.2, 0.3])
    );
}

#[test]
fn changed_classes_and_channels_give_notes() {
    let fixture = fixture("torchvision_mobilenet_v2");
    let folder = tempfile::tempdir().unwrap();
    let path = fixture.write(folder.path(), |_| ());
    let names = |count: usize| (0..count).map(|index| format!("name {index}")).collect::<Vec<_>>();
    let before = logits(&load(&path).unwrap().model);
    let (renamed, note) = load(&path).unwrap().model.with_classes(names(10)).unwrap();
    assert_eq!((note, renamed.card.classes[3].as_str()), (None, "name 3"));
    assert_eq!(logits(&renamed), before);
    let (fewer, note) = renamed.with_classes(names(4)).unwrap();
    assert_eq!(note.unwrap(), "the classifier is new, for 4 classes instead of 10: train it");
    assert_eq!((fewer.card.architecture.num_classes, logits(&fewer).len()), (4, 8));
    let (gray, note) = fewer.with_input_channels(1).unwrap();
    assert_eq!(note.unwrap(), "the stem's weights are summed, for 1 input channel instead of 3");
    assert_eq!(gray.network.stem.weight.dims()[1], 1);
    assert!(gray.with_classes(vec![]).is_err());
}

#[test]
fn files_without_weights_are_errors_that_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let fails = |path: &Path| load(path).unwrap_err().to_string();
    assert!(fails(&at("gone.pth")).contains("gone.pth"));
    assert!(fails(folder.path()).contains("without best.safetensors"));
    for (name, bytes) in [
        ("empty.pth", &b""[..]),
        ("text.pth", b"<html>404: Not Found</html>"),
        ("huge.safetensors", b"\0\0\0\0\0\0\0\x10{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"),
        ("cut.pth", b"PK\x03\x04\0\0"),
    ] {
        std::fs::write(at(name), bytes).unwrap();
        let error = fails(&at(name));
        let expected = if name == "text.pth" { "a web page, not weights" } else { "not a usable weights file" };
        assert!(error.contains(name) && error.contains(expected), "{error}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink(at("nowhere"), at("dangling.pth")).unwrap();
        symlink(at("circle.pth"), at("circle.pth")).unwrap();
        symlink("/dev/zero", at("endless.pth")).unwrap();
        assert!(fails(&at("dangling.pth")).contains("cannot read"));
        assert!(fails(&at("circle.pth")).contains("cannot read"));
        assert!(fails(&at("endless.pth")).contains("not a file"));
    }
}

/// Returns intact weights files in all formats, by name.
fn intact_files() -> &'static [(String, Vec<u8>)] {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let network = fixture("flat_mobilenet_v2_0.1").write(folder.path(), |_| ());
        let name = network.file_name().unwrap().to_str().unwrap().to_string();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import");
        let forms =
            ["zip.pth", "protocol_4.pth", "legacy.pth", "checkpoint.pth", "legacy_checkpoint.pth", "module.pth"];
        let forms = forms.map(|form| (form.to_string(), std::fs::read(fixtures.join(form)).unwrap()));
        std::iter::once((name, std::fs::read(&network).unwrap())).chain(forms).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Damaged files give an error that names the file, or a model.
    #[test]
    fn damaged_files_are_errors_or_models(
        which in any::<prop::sample::Index>(),
        // Most changes are in headers.
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<u8>()), 0..6),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        const HEADERS: usize = 16 << 10;
        let (name, whole) = &intact_files()[which.index(intact_files().len())];
        let mut bytes = whole.clone();
        for (at, anywhere, byte) in changes {
            let length = if anywhere { bytes.len() } else { bytes.len().min(HEADERS) };
            bytes[at.index(length)] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        match load(&path) {
            Ok(loaded) => prop_assert_eq!(loaded.model.card.architecture.name, "mobilenet_v2_0.1_round4"),
            Err(error) => {
                let error = error.to_string();
                prop_assert!(error.contains(name.as_str()) && error.len() < 5000, "{}", error);
            }
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn sizes_in_headers_allocate_nothing() {
    let peak = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let header = |shape: &str, end: u64| {
        let header =
            format!("{{\"conv.0.weight\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[0,{end}]}}}}");
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 64]].concat()
    };
    for (name, bytes) in [
        ("length.safetensors", [&(1u64 << 60).to_le_bytes()[..], b"{}"].concat()),
        ("offsets.safetensors", header("[4503599627370496,64]", 1 << 60)),
        ("shape.safetensors", header("[4294967296,4294967296]", 64)),
        ("small.safetensors", header("[1099511627776]", 64)),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("not a usable weights file"), "{error}");
    }
    // In KiB, including the other tests of this file.
    assert!(peak() < 4 << 20, "{} KiB", peak());
}
