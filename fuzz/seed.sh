#!/usr/bin/env bash
# Fills fuzz/corpus/ with small model files of every layout and precision, their headers, weights of other projects, and names.
set -euo pipefail
cd "$(dirname "$0")/.."

corpus=fuzz/corpus
mkdir -p "$corpus"/{csv,image,jpeg_crop,model_file,model_header,parquet,tar,weights_file,weights_name,zip}
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
mbconv() { cargo run --release --quiet -- "$@"; }

mbconv train configs/digits.toml --out "$run/digits" --set epochs=1 --set model.name=mobilenet_v2_0.1
for layout in torchvision timm; do
    for dtype in f32 f16 bf16; do
        file="$corpus/model_file/$layout-$dtype.safetensors"
        mbconv export "$run/digits" "$file" --layout "$layout" --dtype "$dtype"
        # The header's length is the file's first eight bytes, little-endian.
        length=$(od -An -t u8 -N 8 "$file" | tr -d ' ')
        head -c $((8 + length)) "$file" | tail -c "$length" > "$corpus/model_header/$layout-$dtype.json"
        # Without its card it is anybody's.
        sed 's/"mbconv":/"nobody":/' "$file" > "$corpus/weights_file/$layout-$dtype.safetensors"
    done
done
find crates/image/tests/fixtures/{decode,kinds} -type f ! -name '*.rgb.png' -exec cp {} "$corpus/image/" \;
cp crates/image/tests/fixtures/decode/*.jpg "$corpus/jpeg_crop/"
cp crates/data/tests/fixtures/{forms/parquet/data,labels}/*.parquet "$corpus/parquet/"
cp crates/data/tests/fixtures/forms/sample.zip "$corpus/zip/"
tar -cf "$corpus/tar/folders.tar" -C crates/data/tests/fixtures/forms/folders .
printf 'image,label\na.png,cat\nb.png,dog\nc.png,cat\n' > "$corpus/csv/names.csv"
cp crates/interop/tests/fixtures/import/*.pth "$corpus/weights_file/"
printf '%s' 'hf:google/mobilenet_v2_1.0_224@main/model.safetensors' > "$corpus/weights_name/repository"
printf '%s' 'https://example.org/models/net-0123abcd.pth#sha256=0123abcd' > "$corpus/weights_name/url"
printf '%s' 'timm/mobilenetv2_100.ra_in1k' > "$corpus/weights_name/timm"
