# Formatting, lints, documentation, training on the embedded digits, tests
ci:
    .ci/run

# Train on the embedded digits
digits:
    cargo run --release -- train digits

# Fast tests
test:
    cargo test --release --workspace

# All tests, including long ones
test-all:
    cargo test --release --workspace -- --include-ignored

# Compare a device with the CPU: wgpu, vulkan:1, cuda …
test-device DEVICE:
    MBCONV_TEST_DEVICE={{DEVICE}} BURN_DEVICE={{DEVICE}} cargo test --release --workspace --features "mbconv/$(echo {{DEVICE}} | cut -d: -f1)" --test device --test image_ops -- --test-threads 1 --nocapture

# Train one epoch on every backend and compare it with the CPU: ndarray, wgpu, mpi
check-backends *BACKENDS:
    scripts/check_backends.sh {{BACKENDS}}

# Run the kernels' unsafe loops under AddressSanitizer
sanitize:
    scripts/sanitize.sh

lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings

# Show the documentation as a book
book:
    mdbook serve docs --open

# Write docs/recipes.md after a change of the recipes' keys
recipe-keys:
    cargo run --release -- recipe keys --markdown > docs/recipes.md.new && mv docs/recipes.md.new docs/recipes.md

# Write golden fixtures (requires scripts/requirements.txt; PHOTOS is a folder of photographs)
golden PHOTOS:
    python3 scripts/golden_nets.py
    python3 scripts/golden_resize.py {{PHOTOS}}
    python3 scripts/golden_augment.py {{PHOTOS}}
    python3 scripts/golden_losses.py
    python3 scripts/golden_fake_quantization.py
