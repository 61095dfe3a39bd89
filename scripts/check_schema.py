"""Validate the recipes of configs/ against the JSON schema of `mbconv recipe schema`.

Usage: python scripts/check_schema.py [MBCONV]

Needs Python 3.11 and the package jsonschema. A recipe with an unknown key, a value out of range or a
misspelled choice must be rejected.
"""

import copy
import json
import pathlib
import subprocess
import sys
import tomllib

import jsonschema

program = sys.argv[1] if len(sys.argv) > 1 else "target/release/mbconv"
schema = json.loads(subprocess.run([program, "recipe", "schema"], check=True, capture_output=True).stdout)
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)

for path in sorted(pathlib.Path("configs").glob("*.toml")):
    validator.validate(tomllib.loads(path.read_text()))
    # The resolved recipe contains every key with its default.
    resolved = subprocess.run([program, "recipe", "show", "--resolved", path], check=True, capture_output=True)
    validator.validate(tomllib.loads(resolved.stdout.decode()))
    print(f"{path}: valid")

digits = tomllib.loads(pathlib.Path("configs/digits.toml").read_text())
for section, key, value in [
    (None, "epocs", 3),
    (None, "epochs", 0),
    ("optimizer", "learning_rate", 0),
    ("optimizer", "momentum", 1),
    ("optimizer", "name", "sgdd"),
    ("input", "scale", [0.0, 1.0]),
    ("model", "input_channels", 2),
    ("model", "classes", 10),
]:
    invalid = copy.deepcopy(digits)
    (invalid[section] if section else invalid)[key] = value
    assert not validator.is_valid(invalid), (section, key, value)
nameless = copy.deepcopy(digits)
del nameless["model"]["name"]
assert not validator.is_valid(nameless)
print("invalid recipes: rejected")
