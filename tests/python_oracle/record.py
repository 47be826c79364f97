"""Writes trees.txt: the spans that the original makes of every case, to be run with the interpreter of its environment."""

import json
import pathlib
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).parent

# Cases, whether to fit, whether to ask for the methods whose names begin with `_` as well.
CASES = ["pipeline", "nested_pipeline", "feature_union", "column_transformer", "random_forest", "multi_output", "user_defined"]
RUNS = [(case, action, methods) for case in CASES for action in ["fit", "predict"] for methods in ["public", "private"]]
# Fitting makes new trees, which the original's rule for children does not know.
RUNS.append(("random_forest_children", "predict", "public"))


def tree(case, action, methods):
    """Names in the order in which the spans began, two spaces deeper for each parent."""
    with tempfile.NamedTemporaryFile("r") as file:
        command = [sys.executable, "-W", "ignore", FOLDER / "oracle.py", case, action, "--instrument", file.name]
        command += ["--private-methods"] if methods == "private" else []
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        spans = json.load(file)
    depths = []
    for span in spans:
        depths.append(0 if span["parent"] is None else depths[span["parent"]] + 1)
    return ["  " * depth + span["name"] for depth, span in zip(depths, spans)]


def main():
    lines = []
    for run in RUNS:
        lines += ["# " + " ".join(run), *tree(*run), ""]
    (FOLDER / "trees.txt").write_text("\n".join(lines))


main()
