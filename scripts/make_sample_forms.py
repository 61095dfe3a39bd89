"""Makes a small data set in every form that mbconv reads, from photographs.

    python scripts/make_sample_forms.py PHOTOS OUT [--size PIXELS] [--classes N]

PHOTOS contains files named `<WordNet ID>_<words>.JPEG`, or one folder per WordNet ID. Every
photograph is used in both splits, so one per class is enough. --size shrinks images to that side
length; otherwise their bytes are kept.

OUT/folders, ilsvrc (nested archives and development kit), ilsvrc-flat, kaggle, wds, wds-json,
parquet, table, list, sample.tar and sample.zip contain the same images with the same labels;
`MBCONV_FORMS=OUT cargo test -- --ignored` compares them.
"""

import argparse
import csv
import io
import json
import pathlib
import random
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io
from PIL import Image


def photographs(folder):
    """Returns (WordNet ID, path) of every photograph, sorted."""
    found = [(path.name.split("_")[0], path) for path in folder.glob("n*_*") if path.is_file()]
    found += [(path.parent.name, path) for path in folder.glob("n*/*") if path.is_file()]
    return sorted(found)


def shrunk(data, size):
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((size, size))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def meta(ids, order):
    """Returns the development kit's meta.mat: class numbers, then WordNet's inner nodes."""
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(number + 1, wnid, f"words of {wnid}", 0) for number, wnid in enumerate(order)]
    rows.append((len(ids) + 1, "n00001740", "entity", len(ids)))
    out = io.BytesIO()
    scipy.io.savemat(out, {"synsets": np.array(rows, dtype=fields).reshape(-1, 1)}, do_compression=True)
    return out.getvalue()


def features(classes):
    """Returns the metadata from which Hugging Face's `datasets` reads column types."""
    info = {"features": {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}}
    return {"huggingface": json.dumps({"info": info})}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--size", type=int)
    parser.add_argument("--classes", type=int)
    args = parser.parse_args()
    out = args.out

    found = photographs(args.photos)
    ids = sorted({wnid for wnid, _ in found})[: args.classes]
    words = {wnid: path.stem.partition("_")[2].replace("_", " ") or wnid for wnid, path in reversed(found)}
    label = {wnid: index for index, wnid in enumerate(ids)}
    samples = [(wnid, path.read_bytes()) for wnid, path in found if wnid in label]
    if args.size:
        samples = [(wnid, shrunk(data, args.size)) for wnid, data in samples]
    names = [words[wnid] for wnid in ids]
    train = [(wnid, f"{wnid}_{index}", data) for index, (wnid, data) in enumerate(samples)]
    # Validation images are numbered in random order, as in ImageNet.
    val = [(wnid, data) for wnid, data in samples]
    random.Random(0).shuffle(val)
    val = [(wnid, f"ILSVRC2012_val_{index + 1:08d}", data) for index, (wnid, data) in enumerate(val)]
    splits = {"train": train, "val": val}
    synset_words = "".join(f"{wnid} {words[wnid]}\n" for wnid in ids)

    for split, images in splits.items():
        for wnid, name, data in images:
            write(out / "folders" / split / wnid / f"{name}.JPEG", data)
    write(out / "folders/synset_words.txt", synset_words)

    inner = [(f"{wnid}.tar", tar([(f"{n}.JPEG", data) for w, n, data in train if w == wnid])) for wnid in ids]
    flat = [(f"{name}.JPEG", data) for _, name, data in val]
    # The development kit numbers the classes in another order.
    order = ids[1:] + ids[:1]
    truth = "".join(f"{order.index(wnid) + 1}\n" for wnid, _, _ in val)
    kit = "ILSVRC2012_devkit_t12/data"
    write(out / "ilsvrc/ILSVRC2012_img_train.tar", tar(inner))
    write(out / "ilsvrc/ILSVRC2012_img_val.tar", tar(flat))
    write(out / "ilsvrc" / kit / "ILSVRC2012_validation_ground_truth.txt", truth)
    write(out / "ilsvrc" / kit / "meta.mat", meta(ids, order))
    write(out / "ilsvrc/synset_words.txt", synset_words)

    for root, image_folder in [("ilsvrc-flat", ""), ("kaggle", "ILSVRC/Data/CLS-LOC")]:
        for wnid, name, data in train:
            write(out / root / image_folder / "train" / wnid / f"{name}.JPEG", data)
        for name, data in flat:
            write(out / root / image_folder / "val" / name, data)
    write(out / "ilsvrc-flat/val.txt", "".join(f"{name}.JPEG {label[wnid]}\n" for wnid, name, _ in val))
    write(out / "ilsvrc-flat/synset_words.txt", synset_words)
    solution = "".join(f"{name},{wnid} 1 1 2 2 \n" for wnid, name, _ in val)
    write(out / "kaggle/LOC_val_solution.csv", "ImageId,PredictionString\n" + solution)
    write(out / "kaggle/LOC_synset_mapping.txt", synset_words)

    for root, extension in [("wds", "cls"), ("wds-json", "json")]:
        for split, images in splits.items():
            half = (len(images) + 1) // 2
            for shard, part in enumerate([images[:half], images[half:]]):
                files = []
                for wnid, name, data in part:
                    told = {"label": label[wnid], "class_name": words[wnid]}
                    told = json.dumps(told) if extension == "json" else str(label[wnid])
                    files += [(f"{name}.jpg", data), (f"{name}.{extension}", told.encode())]
                write(out / root / f"sample-{split}-{shard:03d}.tar", tar(files))
    write(out / "wds/classes.txt", "".join(f"{name}\n" for name in names))

    # As written by `datasets`, and with the settings of other writers.
    ways = [{}, {"compression": "zstd", "data_page_version": "2.0"}]
    for split, images in splits.items():
        half = (len(images) + 1) // 2
        for shard, (part, way) in enumerate(zip([images[:half], images[half:]], ways)):
            table = pa.table(
                {
                    "image": pa.array([{"bytes": data, "path": f"{name}.JPEG"} for _, name, data in part]),
                    "label": pa.array([label[wnid] for wnid, _, _ in part], pa.int64()),
                }
            ).replace_schema_metadata(features(names))
            path = out / "parquet/data" / f"{'validation' if split == 'val' else split}-{shard:05d}-of-00002.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path, row_group_size=2 if args.size else 10, **way)

    for root in ["table", "list"]:
        for split, images in splits.items():
            for wnid, name, data in images:
                write(out / root / "images" / f"{split} {name}.jpg", data)
    with (out / "table/all.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["split", "path", "label", "class_name"])
        for split, images in splits.items():
            rows.writerows([split, f"images/{split} {name}.jpg", label[wnid], words[wnid]] for wnid, name, _ in images)
    for split, images in splits.items():
        lines = "".join(f"images/{split} {name}.jpg {label[wnid]}\n" for wnid, name, _ in images)
        write(out / "list" / f"{split}.txt", lines)
    write(out / "list/classes.txt", "".join(f"{name}\n" for name in names))

    files = [(f"sample/{split}/{words[w]}/{n}.jpg", data) for split in splits for w, n, data in splits[split]]
    write(out / "sample.tar", tar(files))
    with zipfile.ZipFile(out / "sample.zip", "w") as archive:
        for index, (name, data) in enumerate(files):
            method = zipfile.ZIP_DEFLATED if index % 2 else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name), data, method)
    print(f"{len(train)} images of {len(ids)} classes in every form, in {out}")


if __name__ == "__main__":
    main()
