"""Writes Parquet files with labels of every type, for crates/data/tests/tables.rs.

    python scripts/make_label_fixtures.py crates/data/tests/fixtures/labels

Each file contains six 4x4 images of gray 0, 40, 80, ...
"""

import datetime
import decimal
import io
import json
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NAMES = ["cat", "dog", "eel"]
COUNTED = [0, 1, 2, 0, 1, 2]


def image(number):
    out = io.BytesIO()
    Image.new("L", (4, 4), number * 40).save(out, "PNG")
    return out.getvalue()


def write(folder, name, version="1.0", feature=None, **columns):
    images = [{"bytes": image(number), "path": None} for number in range(6)]
    columns = {"image": columns.pop("image", pa.array(images)), **columns}
    table = pa.table(columns)
    if feature:
        info = {"info": {"features": {"image": {"_type": "Image"}, "label": feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, folder / f"{name}.parquet", data_page_version=version, compression="snappy")


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    texts = [NAMES[label] for label in COUNTED]
    truths = pa.array([True, False] * 3)
    class_label = {"names": NAMES, "_type": "ClassLabel"}
    write(folder, "bool", label=truths)
    write(folder, "bool_v2", "2.0", label=truths)
    write(folder, "float", label=pa.array(COUNTED, pa.float32()))
    write(folder, "double", label=pa.array(COUNTED, pa.float64()))
    write(folder, "int8", label=pa.array(COUNTED, pa.int8()))
    write(folder, "text", label=pa.array(texts))
    write(folder, "dictionary", label=pa.array(texts).dictionary_encode())
    write(folder, "list_of_one", label=pa.array([[label] for label in COUNTED]))
    write(folder, "list_of_one_v2", "2.0", label=pa.array([[text] for text in texts]))
    write(folder, "class_label", feature=class_label, label=pa.array(COUNTED))
    lists = {"feature": class_label, "_type": "List"}
    write(folder, "class_label_list", feature=lists, label=pa.array([[label] for label in COUNTED]))
    write(folder, "plain_binary", image=pa.array([image(number) for number in range(6)]), label=pa.array(COUNTED))
    write(folder, "absent", label=pa.array([[0], [], [1], None, [2], []]))
    write(folder, "list", label=pa.array([[0], [1, 2], [2], [], [1], [0]]))
    write(folder, "list_v2", "2.0", label=pa.array([[0], [1, 2], [2], [], [1], [0]]))
    write(folder, "fractions", label=pa.array([0.5, 1.0, 2.0, 0.0, 1.0, 2.0]))
    write(folder, "timestamp", label=pa.array([datetime.datetime(2020, 1, 1)] * 6))
    write(folder, "decimal", label=pa.array([decimal.Decimal("1.00")] * 6))
    write(folder, "struct", label=pa.array([{"id": label, "name": NAMES[label]} for label in COUNTED]))
    write(folder, "nested", label=pa.array([[[label]] for label in COUNTED]))
    write(folder, "two_columns", species=pa.array(texts), age=pa.array(COUNTED))
    write(folder, "no_image", image=pa.array(COUNTED), label=pa.array(COUNTED))


main()
