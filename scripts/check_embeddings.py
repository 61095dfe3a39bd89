#!/usr/bin/env python3
"""Compares the Parquet file of `mbconv embed` with its .npy and .csv files.

    python scripts/check_embeddings.py MODEL DATA --mbconv target/release/mbconv

Reads the file with pyarrow and pandas. Requires numpy, pandas and pyarrow.
"""
import argparse
import csv
import pathlib
import subprocess
import tempfile

import numpy
import pandas
import pyarrow
import pyarrow.parquet


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--mbconv", default="target/release/mbconv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in ("e.npy", "f.parquet"):
            command = [args.mbconv, "embed", args.model, args.data, "--out", folder / name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        expected = numpy.load(folder / "e.npy")
        with open(folder / "e.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        file = pyarrow.parquet.ParquetFile(folder / "f.parquet")
        schema = file.schema_arrow
        assert schema.names == ["path", "label", "embedding"], schema
        assert schema.field("path").type == schema.field("label").type == pyarrow.string()
        assert schema.field("embedding").type == pyarrow.list_(pyarrow.field("element", pyarrow.float32(), False))
        frame = pandas.read_parquet(folder / "f.parquet")
        assert numpy.array_equal(numpy.stack(frame["embedding"]), expected)
        assert frame["path"].tolist() == [row["path"] for row in rows]
        assert [label or "" for label in frame["label"]] == [row["label"] for row in rows]
        count = file.metadata.num_row_groups
        print(f"{len(frame)} rows of {expected.shape[1]} features in {count} row groups are equal")


if __name__ == "__main__":
    main()
