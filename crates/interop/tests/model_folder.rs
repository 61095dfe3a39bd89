//! Folders for timm and transformers: contents, networks that a library lacks, and reading them
//! back without mbconv's metadata.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use mbconv_image::{CropRounding, Interpolation, Preprocess, ResizeMode};
use mbconv_interop::import::{ImportOptions, load_weights};
use mbconv_interop::model_file::{Model, ModelCard, MultiLabel, Results};
use mbconv_interop::model_folder::{FolderError, Library, configuration, write};
use mbconv_nets::weights::{Precision, to_safetensors_in};
use mbconv_nets::{Network, NetworkOptions, Strides};
use serde_json::{Value, json};

fn card(options: NetworkOptions, side: usize) -> ModelCard {
    let classes = (0..options.num_classes).map(|index| format!("class {index}")).collect();
    let preprocess = Preprocess {
        resize: (side * 8 / 7).into(),
        crop: side.into(),
        interpolation: Interpolation::Bicubic,
        ..Preprocess::default()
    };
    ModelCard::new(options, classes, preprocess)
}

fn network(card: &ModelCard) -> Network {
    card.architecture.architecture().unwrap().init(&Device::default())
}

fn logits(network: &Network) -> Vec<f32> {
    let images = Tensor::<4>::full([1, 3, 64, 64], 0.3, &Device::default());
    network.forward(images).into_data().try_to_vec().unwrap()
}

fn json_of(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}

/// Writes and reads the folder of a network with and without mbconv's metadata in the weights.
fn check_round_trip(library: Library, card: &ModelCard) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("model");
    let network = network(card);
    write(&network, card, library, Precision::F32, &folder).unwrap();
    let load = || load_weights(&folder, &ImportOptions::default(), &Device::default()).unwrap().model;
    let own = load();
    assert_eq!((&own.card, logits(&own.network)), (card, logits(&network)));

    let plain = to_safetensors_in(&network, library.layout(), Precision::F32, None).unwrap();
    std::fs::write(folder.join("model.safetensors"), plain).unwrap();
    let imported = load();
    // The libraries' crops differ in rounding, and their files do not contain training settings.
    let expected = Preprocess { crop_rounding: imported.card.preprocess.crop_rounding, ..card.preprocess.clone() };
    assert_eq!(imported.card.preprocess, expected);
    assert_eq!(imported.card.classes, card.classes);
    let shown = |card: &ModelCard| {
        let network = card.architecture.architecture().unwrap();
        (network.layer_options.padding, network.layer_options.norm_epsilon, network.blocks)
    };
    assert_eq!(shown(&imported.card), shown(card), "{library:?} {}", card.architecture.name);
    assert_eq!(logits(&imported.network), logits(&network));
}

#[test]
fn timm_folders_are_read_back() {
    for name in ["mobilenet_v2_0.35", "tf_mobilenet_v2_0.35", "efficientnet_lite0", "tf_efficientnet_b0"] {
        check_round_trip(Library::Timm, &card(NetworkOptions::new(name, 3), 64));
    }
    let epsilon = NetworkOptions { norm_epsilon: Some(0.01), ..NetworkOptions::new("efficientnet_b0", 3) };
    check_round_trip(Library::Timm, &card(epsilon, 64));
}

#[test]
fn transformers_folders_are_read_back() {
    for name in ["mobilenet_v2_0.35", "tf_mobilenet_v2_0.35", "mobilenet_v2_0.6", "tf_efficientnet_b0"] {
        check_round_trip(Library::Transformers, &card(NetworkOptions::new(name, 3), 64));
    }
    let mut squashed = card(NetworkOptions::new("mobilenet_v2_0.35", 3), 64);
    squashed.preprocess.resize_mode = ResizeMode::Squash;
    squashed.preprocess.crop_rounding = CropRounding::Down;
    check_round_trip(Library::Transformers, &squashed);
}

#[test]
fn letterboxes_are_written_or_noted() {
    let mut letterbox = card(NetworkOptions::new("mobilenet_v2_0.35", 3), 64);
    letterbox.preprocess.resize_mode = ResizeMode::Letterbox;
    check_round_trip(Library::Timm, &letterbox);
    let timm = configuration(Library::Timm, &letterbox).unwrap().swap_remove(0).1;
    assert_eq!(timm["pretrained_cfg"]["crop_mode"], "border");
    assert_eq!(Library::Timm.preprocessing_note(&letterbox.preprocess), None);
    let note = Library::Transformers.preprocessing_note(&letterbox.preprocess).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("hf");
    let network = letterbox.architecture.architecture().unwrap().init(&Default::default());
    write(&network, &letterbox, Library::Transformers, Precision::F32, &out).unwrap();
    assert!(std::fs::read_to_string(out.join("README.md")).unwrap().contains(note));
}

#[test]
fn rectangles_are_written_or_noted() {
    let rectangle = |name: &str, size: [usize; 2], resize_mode| {
        let mut card = card(NetworkOptions::new(name, 3), 64);
        let size = size.into();
        card.preprocess = Preprocess { resize: size, crop: size, resize_mode, ..card.preprocess };
        card
    };
    let of =
        |library, card: &ModelCard| configuration(library, card).map(|files| files.into_iter().map(|(_, file)| file));
    for mode in [ResizeMode::Shorter, ResizeMode::Squash, ResizeMode::Letterbox] {
        let wide = rectangle("mobilenet_v2_0.35", [64, 96], mode);
        check_round_trip(Library::Timm, &wide);
        let pretrained = of(Library::Timm, &wide).unwrap().next().unwrap()["pretrained_cfg"].take();
        assert_eq!((&pretrained["input_size"], &pretrained["crop_pct"]), (&json!([3, 64, 96]), &json!(1.0)));
        assert_eq!(Library::Timm.preprocessing_note(&wide.preprocess), None);
        let note = Library::Transformers.preprocessing_note(&wide.preprocess);
        assert_eq!(note.is_some(), mode != ResizeMode::Squash, "{note:?}");
    }
    let squash = rectangle("mobilenet_v2_0.35", [64, 96], ResizeMode::Squash);
    check_round_trip(Library::Transformers, &squash);
    let [config, processor] = of(Library::Transformers, &squash).unwrap().collect::<Vec<_>>().try_into().unwrap();
    let size = json!({"height": 64, "width": 96});
    assert_eq!((&config["image_size"], &processor["size"], &processor["crop_size"]), (&json!([64, 96]), &size, &size));
    // timm's two sides have one fraction.
    let mut cropped = squash.clone();
    cropped.preprocess.resize = 128.into();
    assert!(Library::Timm.preprocessing_note(&cropped.preprocess).unwrap().contains("crop_pct"));
    // transformers pads both sides of a feature map equally: 240 pixels leave 15 positions, and 224
    // leave 14.
    for (size, fits) in [([64, 96], true), ([224, 288], true), ([240, 240], true), ([240, 224], false)] {
        let result = of(Library::Transformers, &rectangle("tf_efficientnet_b0", size, ResizeMode::Squash)).map(drop);
        assert_eq!(result.is_ok(), fits, "{size:?}: {result:?}");
        assert!(result.is_ok() || result.unwrap_err().to_string().contains("pad height and width equally"));
    }
}

#[test]
fn configurations_have_the_libraries_keys() {
    let timm =
        |name: &str| configuration(Library::Timm, &card(NetworkOptions::new(name, 3), 224)).unwrap().swap_remove(0).1;
    let config = timm("mobilenet_v2");
    assert_eq!((&config["architecture"], &config["num_classes"]), (&json!("mobilenetv2_100"), &json!(3)));
    assert_eq!(config["label_names"], json!(["class 0", "class 1", "class 2"]));
    assert!(config.get("model_args").is_none());
    let pretrained = &config["pretrained_cfg"];
    assert_eq!((&pretrained["input_size"], &pretrained["crop_pct"]), (&json!([3, 224, 224]), &json!(0.875)));
    assert_eq!((&pretrained["mean"], &pretrained["interpolation"]), (&json!([0.485, 0.456, 0.406]), &json!("bicubic")));
    assert_eq!((&pretrained["first_conv"], &pretrained["classifier"]), (&json!("conv_stem"), &json!("classifier")));
    assert_eq!(timm("tf_mobilenet_v2_1.4")["model_args"], json!({"pad_type": "same", "bn_eps": 1e-3}));
    assert_eq!(timm("efficientnet_b5")["model_args"], json!({"bn_eps": 1e-3}));

    let hf = |name: &str, side: usize| {
        let files = configuration(Library::Transformers, &card(NetworkOptions::new(name, 3), side)).unwrap();
        (files[0].1.clone(), files[1].1.clone())
    };
    let (config, processor) = hf("mobilenet_v2_1.4", 224);
    assert_eq!((&config["model_type"], &config["tf_padding"]), (&json!("mobilenet_v2"), &json!(false)));
    assert_eq!((&config["depth_multiplier"], &config["layer_norm_eps"]), (&json!(1.4), &json!(1e-5)));
    assert_eq!((&config["id2label"]["2"], &config["label2id"]["class 2"]), (&json!("class 2"), &json!(2)));
    assert_eq!((&processor["size"], &processor["resample"]), (&json!({"shortest_edge": 256}), &json!(3)));
    // As in google/efficientnet-b1: the input of block 16 has an odd side at 240 pixels.
    let (config, _) = hf("tf_efficientnet_b1", 240);
    assert_eq!((&config["depthwise_padding"], &config["width_coefficient"]), (&json!([16]), &json!(1.0)));
    assert_eq!((&config["hidden_dim"], &config["depth_coefficient"]), (&json!(1280), &json!(1.1)));
    assert_eq!(hf("tf_efficientnet_b7", 600).0["hidden_dim"], 2560);
}

#[test]
fn multi_label_models_keep_their_problem_type() {
    let thresholds = Some(vec![0.25, 0.5, 0.75]);
    let card = card(NetworkOptions::new("mobilenet_v2_1.4", 3), 64).with_multi_label(Some(MultiLabel { thresholds }));
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("tags");
    let network = network(&card);
    write(&network, &card, Library::Transformers, Precision::F32, &folder).unwrap();
    assert_eq!(json_of(&folder, "config.json")["problem_type"], "multi_label_classification");
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme.contains("any number of them") && readme.contains("logits[0].sigmoid()"), "{readme}");
    let load = || load_weights(&folder, &ImportOptions::default(), &Device::default()).unwrap().model.card;
    assert_eq!((load().thresholds(), load().format), (Some(vec![0.25, 0.5, 0.75]), 2));

    let plain = to_safetensors_in(&network, Library::Transformers.layout(), Precision::F32, None).unwrap();
    std::fs::write(folder.join("model.safetensors"), plain).unwrap();
    assert_eq!(load().thresholds(), Some(vec![0.5; 3]));

    // Thresholds must fit the classes.
    let file = parent.path().join("model.safetensors");
    let wrong = MultiLabel { thresholds: Some(vec![0.5, 2.0, 0.5]) };
    Model::save(&network, &card.clone().with_multi_label(Some(wrong)), Precision::F32, &file).unwrap();
    let error = Model::open(&file, &Device::default()).unwrap_err().to_string();
    assert!(error.contains("one threshold from 0 to 1 for each of the 3 classes"), "{error}");
}

#[test]
fn networks_that_a_library_lacks_are_refused() {
    let named = |name: &str| NetworkOptions::new(name, 3);
    for (library, options, side, words) in [
        (Library::Timm, named("mobilenet_v2_0.6"), 224, "none of its networks"),
        (Library::Timm, NetworkOptions { strides: Strides::Cifar, ..named("mobilenet_v2") }, 32, "strides"),
        (Library::Timm, NetworkOptions { depth: Some(1.1), ..named("efficientnet_b0") }, 224, "none of its networks"),
        (Library::Transformers, named("efficientnet_lite0"), 224, "Lite or EdgeTPU"),
        (Library::Transformers, named("tf_efficientnet_es"), 224, "Lite or EdgeTPU"),
        (Library::Transformers, named("efficientnet_b0"), 224, "pads symmetrically"),
        (Library::Transformers, named("tf_efficientnet_b0"), 223, "odd side, 223"),
        (Library::Transformers, named("mobilenet_v2_110d"), 224, "other blocks or strides"),
        // Its first block has a residual connection.
        (Library::Transformers, named("mobilenet_v2_0.25"), 224, "other blocks or strides"),
        (Library::Transformers, NetworkOptions { strides: Strides::Cifar, ..named("mobilenet_v2") }, 32, "strides"),
    ] {
        let error = configuration(library, &card(options.clone(), side)).unwrap_err();
        assert!(matches!(&error, FolderError::Inexpressible { .. }), "{error}");
        assert!(error.to_string().contains(words) && error.hint().is_some(), "{}: {error}", options.name);
    }
}

#[test]
fn readme_contains_what_the_model_file_contains() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("pets");
    let mut card = card(NetworkOptions::new("mobilenet_v2_0.35", 3), 64);
    let readme = |card: &ModelCard, library| {
        write(&network(card), card, library, Precision::F16, &folder).unwrap();
        std::fs::read_to_string(folder.join("README.md")).unwrap()
    };
    let text = readme(&card, Library::Timm);
    assert!(text.starts_with("---\nlibrary_name: timm\npipeline_tag: image-classification\ntags:\n"), "{text}");
    for words in ["# pets\n", "`class 0`, `class 1`, `class 2`", "local-dir:pets", "hf:OWNER/NAME", "## Intended use"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("license: ") && !text.contains("## Evaluation") && !text.contains("## Training"), "{text}");

    card.results = Some(Results {
        epoch: 7,
        top1: 0.9477,
        top5: 1.0,
        loss: 0.2,
        images: 153,
        macro_f1: None,
        map: None,
        balanced_accuracy: None,
    });
    card.recipe = Some(json!({
        "epochs": 9, "data": {"path": "/home/me/photos/"}, "finetune": {"weights": "/home/me/.cache/b0.pth"},
    }));
    let text = readme(&card, Library::Transformers);
    for words in [
        "library_name: transformers",
        "metrics:\n- accuracy",
        "data set `photos`",
        "starting from `b0.pth`",
        "epochs 9",
        "94.77 %",
        "153 validation images",
        "AutoImageProcessor.from_pretrained(\"pets\")",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // Paths on this machine are not published.
    let file = std::fs::read(folder.join("model.safetensors")).unwrap();
    assert!(!text.contains("/home") && !String::from_utf8_lossy(&file[..10_000]).contains("/home"));
    let opened = Model::open(&folder, &Device::default()).unwrap();
    assert_eq!(opened.card.recipe.unwrap()["data"]["path"], "photos");
    // The files of the other library are gone.
    readme(&card, Library::Timm);
    assert!(!folder.join("preprocessor_config.json").exists());
    assert_eq!(json_of(&folder, "config.json")["architecture"], "mobilenetv2_035");
}

#[test]
fn folders_with_other_files_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "precious").unwrap();
    let card = card(NetworkOptions::new("mobilenet_v2_0.35", 3), 64);
    let error = write(&network(&card), &card, Library::Timm, Precision::F32, folder.path()).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
