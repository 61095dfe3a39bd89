//! User errors give messages that name the file, key or value at fault, and change no existing
//! file.

mod common;

use std::fs;

use common::{error, image_folder, path, run, tiny_recipe, trained};

#[test]
fn missing_and_malformed_data_sets_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let out = folder.path().join("run");
    let train = |data: &str| error(&["train", path(&recipe), "--data", data, "--out", path(&out)]);
    assert!(train("/no/such/folder").contains("/no/such/folder"));

    let empty = folder.path().join("empty");
    image_folder(&empty, &["a", "b"], 3);
    fs::create_dir(empty.join("c")).unwrap();
    let message = train(path(&empty));
    assert!(message.contains("empty/c") && message.contains("hint: "), "{message}");

    let flat = folder.path().join("flat");
    image_folder(folder.path(), &["flat"], 3);
    assert!(train(path(&flat)).contains("no class folders"));

    let cifar = folder.path().join("cifar-10-batches-bin");
    fs::create_dir(&cifar).unwrap();
    for file in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"] {
        fs::write(cifar.join(format!("{file}.bin")), vec![0; 3073 * 2]).unwrap();
    }
    fs::write(cifar.join("data_batch_3.bin"), vec![0; 4000]).unwrap();
    let message = train(path(&cifar));
    assert!(message.contains("data_batch_3.bin") && message.contains("4000 bytes"), "{message}");

    let few = folder.path().join("few");
    image_folder(&few, &["a", "b"], 5);
    let message = train(path(&few));
    assert!(message.contains("8 images, fewer than one batch of 64") && message.contains("batch_size"), "{message}");
    assert!(!out.join("checkpoint.safetensors").exists());
}

#[test]
fn invalid_recipes_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("recipe.toml");
    let text = common::TINY.replace("learning_rate", "learning_rat");
    fs::write(&recipe, text).unwrap();
    let message = error(&["train", path(&recipe)]);
    assert!(
        message.contains("learning_rat") && message.contains("recipe.toml") && message.contains("line"),
        "{message}"
    );
    fs::write(&recipe, common::TINY.replace("batch_size = 64", "batch_size = -1")).unwrap();
    assert!(error(&["train", path(&recipe)]).contains("batch_size"));
    fs::write(&recipe, common::TINY.replace("path = \"digits\"", "")).unwrap();
    assert!(error(&["train", path(&recipe)]).contains("--data"));
    let good = tiny_recipe(folder.path());
    assert!(error(&["train", path(&good), "--set", "optimizer.lr=1"]).contains("lr"));
    assert!(error(&["train", path(&good), "--device", "tpu"]).contains("`tpu`"));
    #[cfg(not(feature = "cuda"))]
    assert!(error(&["train", path(&good), "--device", "cuda"]).contains("--features cuda"));
}

#[test]
fn invalid_model_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    let whole = fs::read(trained().join("best.safetensors")).unwrap();
    for (name, bytes, words) in [
        ("cut in half", &whole[..whole.len() / 2], "the safetensors file is damaged or incomplete"),
        ("a few bytes", &whole[..5], "neither a PyTorch checkpoint nor a safetensors file"),
        ("empty", &[][..], "neither a PyTorch checkpoint nor a safetensors file"),
        ("text", b"{\"hello\": 1} and more text", "neither a PyTorch checkpoint nor a safetensors file"),
    ] {
        fs::write(&model, bytes).unwrap();
        for command in [
            &["eval", path(&model), "--data", "digits"][..],
            &["predict", path(&model), "x.png"],
            &["info", path(&model)],
        ] {
            let message = error(command);
            assert!(message.contains(words) && message.contains("model.safetensors"), "{name}: {message}");
        }
    }
    assert!(error(&["eval", "gone.safetensors", "--data", "digits"]).contains("gone.safetensors"));
    fs::remove_file(&model).unwrap();
    assert!(error(&["eval", path(folder.path()), "--data", "digits"]).contains("best.safetensors"));
}

#[test]
fn missing_and_invalid_images_are_errors_in_predict() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("text.png");
    fs::write(&image, "this is text").unwrap();
    assert!(error(&["predict", path(trained()), path(&image)]).contains("text.png"));
    assert!(error(&["predict", path(trained()), "gone.jpg"]).contains("gone.jpg"));
    fs::remove_file(&image).unwrap();
    assert!(error(&["predict", path(trained()), path(folder.path())]).contains("holds no images"));
}

#[test]
fn unwritable_outputs_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    // A file in place of a folder: fails for any user, including root.
    let file = folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    let message = error(&["train", path(&recipe), "--out", path(&file.join("run"))]);
    assert!(message.contains("cannot write") && message.contains("file/run"), "{message}");
    let message = error(&["export", path(trained()), path(&file.join("model.safetensors"))]);
    assert!(message.contains("cannot write"), "{message}");
    assert!(error(&["export", path(trained()), path(folder.path())]).contains("is a folder"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    #[cfg(unix)]
    assert!(error(&["export", path(trained()), "/dev/null", "--format", "safetensors"]).contains("not a regular file"));
    // A writable file is replaced completely.
    run(0, &["export", path(trained()), path(&file), "--format", "safetensors"]);
    run(0, &["info", path(&file)]);
}

#[cfg(not(feature = "mpi"))]
#[test]
fn program_without_mpi_rejects_several_processes() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = common::tiny_recipe(folder.path());
    let output =
        common::mbconv().args(["train", common::path(&recipe)]).env("OMPI_COMM_WORLD_SIZE", "2").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("started as 2 processes") && text.contains("--features mpi"), "{text}");
}

#[test]
fn training_beyond_the_available_memory_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let out = folder.path().join("run");
    let large = ["--set", "input.size=8192", "--set", "batch_size=1024", "--set", "data.prefetch=1"];
    let arguments = ["train", path(&recipe), "--out", path(&out), "--device", "cpu"];
    let message = error(&[&arguments[..], &large].concat());
    assert!(message.contains("1024 images of 8192×8192 pixels") && message.contains("GB are available"), "{message}");
    assert!(message.contains("hint: ") && !out.exists(), "{message}");
}

#[cfg(unix)]
#[test]
fn control_characters_in_names_are_escaped_in_all_output() {
    let folder = tempfile::tempdir().unwrap();
    let class = "cat\u{1b}[31m\nerror: fake\u{202e}";
    let data = folder.path().join("data");
    image_folder(&data, &[class, "dog"], 10);
    let recipe = tiny_recipe(folder.path());
    let (out, empty) = (folder.path().join("run"), folder.path().join(class));
    fs::create_dir(&empty).unwrap();
    let table = folder.path().join("found.csv");
    let shorter = ["--set", "epochs=1", "--set", "batch_size=8", "--set", "schedule.warmup_epochs=0"];
    let train = ["train", path(&recipe), "--data", path(&data), "--out", path(&out), "--device", "cpu"];
    let (stdout, stderr) = run(0, &[&train[..], &shorter].concat());
    let mut printed = vec![("train".to_string(), stdout + &stderr)];
    fs::write(data.join(class).join("=bad\u{7}\nerror: fake.png"), "no image").unwrap();
    for (status, arguments) in [
        (0, &["info", path(&out)][..]),
        (1, &["eval", path(&out), "--data", path(&data), "--split", "all"]),
        (0, &["eval", path(&out), "--data", path(&data), "--split", "all", "--skip-bad-images"]),
        (1, &["predict", path(&out), path(&data)]),
        (0, &["data", "inspect", path(&data)]),
        (1, &["data", "verify", path(&data)]),
        (1, &["data", "verify", path(&data), "--report", path(&table)]),
        (1, &["data", "split", path(&data), path(&folder.path().join("split"))]),
        (1, &["data", "inspect", path(&empty)]),
        (1, &["train", path(&recipe), "--data", path(&empty), "--out", path(&out)]),
        (1, &["info", path(&empty)]),
        (0, &["compare", path(&out)]),
    ] {
        let (stdout, stderr) = run(status, arguments);
        printed.push((format!("{arguments:?}"), stdout + &stderr));
    }
    printed.push(("log".into(), fs::read_to_string(out.join("log.txt")).unwrap()));
    for (what, text) in &printed {
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{what}: {text}");
        assert!(!text.contains("\nerror: fake"), "{what}: {text}");
    }
    assert!(printed.iter().filter(|(_, text)| text.contains("\\u001b[31m\\u000aerror: fake\\u202e")).count() > 8);
    let (_, stderr) = run(2, &["predict", "model", "--\u{202e}x"]);
    assert!(stderr.contains("--\\u202ex") && !stderr.contains('\u{202e}'), "{stderr}");
    let csv = fs::read_to_string(table).unwrap();
    assert!(csv.contains(class) && csv.contains("=bad\u{7}\nerror"), "{csv}");
    let json = common::json(&["info", path(&out), "--json"]);
    assert_eq!(json["class_names"][0], class);
}
